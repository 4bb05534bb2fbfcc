// Svidcheck verifies what mintmark mints with other people's code: go-spiffe and go-oidc.
//
//	svidcheck bundle -bundle FILE|URL -trust-domain TD
//	svidcheck x509   -bundle FILE|URL -trust-domain TD -chain FILE [-at RFC3339]
//	svidcheck jwt    -bundle FILE|URL -trust-domain TD -audience A [-audience B] [-token FILE]
//	svidcheck oidc   -issuer URL -audience A [-ca FILE] [-token FILE]
//
// A token comes from standard input unless a file is named. The answer is one JSON object on standard output: "ok", and
// either what was verified or "error". Exit code 0 means verified, 1 refused, 2 wrong usage.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// options holds the flags of all subcommands; each checks for the ones it needs.
type options struct {
	bundle      string
	trustDomain string
	chain       string
	at          string
	token       string
	issuer      string
	ca          string
	audiences   list
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// errUsage marks errors of the command line, as opposed to a refusal.
var errUsage = errors.New("usage")

var commands = map[string]func(*options) (map[string]any, error){
	"bundle": checkBundle,
	"x509":   checkX509,
	"jwt":    checkJWT,
	"oidc":   checkOIDC,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "svidcheck: the first argument is bundle, x509, jwt or oidc")
		os.Exit(2)
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.bundle, "bundle", "", "SPIFFE bundle: file or http(s) URL")
	flags.StringVar(&o.trustDomain, "trust-domain", "", "SPIFFE trust domain of the bundle")
	flags.StringVar(&o.chain, "chain", "", "X.509-SVID chain (PEM, leaf first)")
	flags.StringVar(&o.at, "at", "", "verify the chain at this time (RFC 3339) instead of now")
	flags.StringVar(&o.token, "token", "-", "file with the token, - for standard input")
	flags.StringVar(&o.issuer, "issuer", "", "OIDC issuer URL")
	flags.StringVar(&o.ca, "ca", "", "PEM file with the CAs of the issuer's or bundle's https endpoint")
	flags.Var(&o.audiences, "audience", "expected audience, repeatable")
	_ = flags.Parse(os.Args[2:])

	answer, err := commands[os.Args[1]](&o)
	if errors.Is(err, errUsage) {
		fmt.Fprintln(os.Stderr, "svidcheck:", err)
		os.Exit(2)
	}
	if err != nil {
		answer = map[string]any{"error": err.Error()}
	}
	answer["ok"] = err == nil
	if encodeErr := json.NewEncoder(os.Stdout).Encode(answer); encodeErr != nil || err != nil {
		os.Exit(1)
	}
}

func require(flags ...[2]string) error {
	for _, f := range flags {
		if f[1] == "" {
			return fmt.Errorf("%w: -%s is required", errUsage, f[0])
		}
	}
	return nil
}

func (o *options) readToken() (string, error) {
	var raw []byte
	var err error
	if o.token == "-" {
		raw, err = io.ReadAll(io.LimitReader(os.Stdin, 1<<16))
	} else {
		raw, err = os.ReadFile(o.token)
	}
	return strings.TrimSpace(string(raw)), err
}

func (o *options) time() (time.Time, error) {
	if o.at == "" {
		return time.Now(), nil
	}
	return time.Parse(time.RFC3339, o.at)
}
