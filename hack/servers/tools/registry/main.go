// Registry is the OCI registry of mintmark's tests and demo: the distribution project's, as a library, behind an access
// control that knows who asks.
//
// It takes JWTs that go-oidc verifies (the library Zot verifies with), client certificates that crypto/tls verifies
// (identity: the URI SAN), and one administrator's password for writing. A policy file lists per repository exactly who
// may read it. It prints one JSON line with the addresses it bound, and then serves until it is ended:
//
//	{"address":"127.0.0.1:5000","origin":"https://127.0.0.1:5000","token_origin":""}
//
// Not for production: nothing is limited, and the policy is read from disk for every request.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"time"
)

// tokenPath is where the token endpoint answers.
const tokenPath = "/token"

func main() {
	path := flag.String("config", "", "JSON configuration file")
	flag.Parse()
	if err := run(*path); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	s, err := newServer(c)
	if err != nil {
		return err
	}
	scheme, settings := "http", (*tls.Config)(nil)
	if c.TLS != nil {
		scheme = "https"
		if settings, err = serverTLS(c.TLS); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	s.service = c.Token.Service
	if s.service == "" {
		s.service = address
	}

	failed := make(chan error, 2)
	tokenOrigin := ""
	if slices.Contains(c.Accept, "token") {
		if tokenOrigin, err = s.serveRealm(scheme, address, settings, failed); err != nil {
			return err
		}
	}
	go func() { failed <- serve(listener, settings, s, s.count) }()
	ended := s.drainOnSignal()
	bound := map[string]string{"address": address, "origin": scheme + "://" + address, "token_origin": tokenOrigin}
	if err := json.NewEncoder(os.Stdout).Encode(bound); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ended:
		return nil
	}
}

// serveRealm decides the realm and, if it has an origin of its own, serves it there.
func (s *server) serveRealm(scheme, address string, settings *tls.Config, failed chan<- error) (string, error) {
	origin := ""
	s.realm = scheme + "://" + address + tokenPath
	if s.config.Token.Listen != "" {
		listener, err := net.Listen("tcp", s.config.Token.Listen)
		if err != nil {
			return "", err
		}
		origin = scheme + "://" + listener.Addr().String()
		s.realm = origin + tokenPath
		go func() { failed <- serve(listener, settings, http.HandlerFunc(s.tokenOrigin), s.count) }()
	}
	if s.config.Token.Realm != "" {
		s.realm = s.config.Token.Realm
	}
	return origin, nil
}

func serve(listener net.Listener, settings *tls.Config, handler http.Handler, count func(net.Conn, http.ConnState)) error {
	server := &http.Server{
		Handler:           handler,
		TLSConfig:         settings,
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext:       numberConnection,
		ConnState:         count,
		// Refused handshakes are part of the tests; what matters of them is seen by the client.
		ErrorLog: log.New(os.Stderr, "registry: ", 0),
	}
	if settings != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

func serverTLS(c *tlsConfig) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, err
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
	if c.MaxVersion == "1.2" {
		settings.MaxVersion = tls.VersionTLS12
	}
	if c.ClientCAFile == "" {
		return settings, nil
	}
	settings.ClientAuth = tls.VerifyClientCertIfGiven
	if c.ClientAuth == "require" {
		settings.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if settings.ClientCAs, err = readPool(c.ClientCAFile); err != nil {
		return nil, err
	}
	if c.ReloadClientCA {
		fixed := settings.Clone()
		settings.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			fresh := fixed.Clone()
			fresh.NextProtos = []string{"h2", "http/1.1"}
			pool, err := readPool(c.ClientCAFile)
			fresh.ClientCAs = pool
			return fresh, err
		}
	}
	return settings, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + path)
	}
	return pool, nil
}
