package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// config is the whole configuration: the JSON file named by -config.
type config struct {
	// Listen is the address of the registry; port 0 takes a free one.
	Listen string `json:"listen"`
	// Storage is the folder of the filesystem driver.
	Storage string `json:"storage"`
	// AccessLog receives one JSON line per request.
	AccessLog string `json:"access_log"`
	// Policy names the file with who may read what. It is read again for every request.
	Policy string `json:"policy"`
	// Admin is the one identity that may write, and read everything, by HTTP basic authentication.
	Admin basicConfig `json:"admin"`
	// TLS is absent for plain HTTP.
	TLS *tlsConfig `json:"tls"`
	// Issuers are the OpenID Connect issuers whose tokens are taken.
	Issuers []issuerConfig `json:"issuers"`
	// Accept lists how a JWT may be presented: "bearer", "basic" (as the password), "token" (exchanged at the realm).
	Accept []string `json:"accept"`
	// DrainMilliseconds is how long the registry goes on after SIGTERM at most: it ends each connection with its next
	// answer, and itself with the last one. 0 means that it ends at once.
	DrainMilliseconds int `json:"drain_ms"`
	// Token configures the token endpoint, in use when Accept has "token".
	Token tokenConfig `json:"token"`
}

type basicConfig struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

type tlsConfig struct {
	CertFile string `json:"cert_file"`
	KeyFile  string `json:"key_file"`
	// ClientCAFile makes the server ask for client certificates.
	ClientCAFile string `json:"client_ca_file"`
	// ClientAuth is "optional" (a certificate given must verify; none is answered with 401) or "require".
	ClientAuth string `json:"client_auth"`
	// ReloadClientCA reads ClientCAFile for every connection instead of once at start.
	ReloadClientCA bool `json:"reload_client_ca"`
	// MaxVersion caps the protocol: "1.2", or empty for no cap.
	MaxVersion string `json:"max_version"`
}

type issuerConfig struct {
	Issuer    string   `json:"issuer"`
	Audiences []string `json:"audiences"`
	// UsernameClaim is the claim that is the subject in policy and log; default "sub".
	UsernameClaim string `json:"username_claim"`
	// CAFile holds the CAs of the issuer's https endpoint; empty means the system's.
	CAFile string `json:"ca_file"`
	// KeysFile holds the issuer's keys as a JSON Web Key Set. With it the issuer is never asked: it may be out of reach.
	KeysFile string `json:"keys_file"`
	// PollSeconds reads the keys at most that often and never for an unknown key id. 0 means the opposite: keys are kept
	// and read again when a token names an unknown one, as go-oidc does by itself.
	PollSeconds int `json:"poll_seconds"`
	// RediscoverSeconds forgets discovery and keys that often, as Zot does (60). 0 means never.
	RediscoverSeconds int `json:"rediscover_seconds"`
}

type tokenConfig struct {
	// Realm overrides the URL in the challenge; default the endpoint served here.
	Realm string `json:"realm"`
	// Listen serves the endpoint on an origin of its own.
	Listen string `json:"listen"`
	// Service is the challenge's service; default host:port of the registry.
	Service string `json:"service"`
	// TTLSeconds is the life of an exchanged token; default 60.
	TTLSeconds int `json:"ttl_seconds"`
	// OmitExpiry leaves expires_in out of the answer.
	OmitExpiry bool `json:"omit_expiry"`
	// AccessToken answers with "access_token" instead of "token".
	AccessToken bool `json:"access_token"`
}

// policy says who may read what.
type policy struct {
	// Readers maps a repository to exactly the subjects that may read it.
	Readers map[string][]string `json:"readers"`
	// Anonymous lists the repositories that anybody may read.
	Anonymous []string `json:"anonymous"`
}

func readJSON(path string, into any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func loadConfig(path string) (*config, error) {
	c := &config{Listen: "127.0.0.1:0", Accept: []string{"bearer"}, Token: tokenConfig{TTLSeconds: 60}}
	if err := readJSON(path, c); err != nil {
		return nil, err
	}
	for i := range c.Issuers {
		if len(c.Issuers[i].Audiences) == 0 {
			return nil, fmt.Errorf("issuer %s: no audiences", c.Issuers[i].Issuer)
		}
		if c.Issuers[i].UsernameClaim == "" {
			c.Issuers[i].UsernameClaim = "sub"
		}
	}
	if c.TLS != nil && c.TLS.ClientCAFile != "" && c.TLS.ClientAuth != "optional" && c.TLS.ClientAuth != "require" {
		return nil, fmt.Errorf("client_auth is %q, want optional or require", c.TLS.ClientAuth)
	}
	return c, nil
}
