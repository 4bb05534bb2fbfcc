package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	jose "github.com/go-jose/go-jose/v4"
)

// issuerTimeout bounds every request to an issuer.
const issuerTimeout = 5 * time.Second

// issuer verifies the tokens of one configured issuer. Discovery happens at the first token, so that a registry can
// start before its issuers do, and a failure is tried again at the next one.
type issuer struct {
	config issuerConfig
	client *http.Client

	mu         sync.Mutex
	verifier   *oidc.IDTokenVerifier
	discovered time.Time
}

func newIssuer(c issuerConfig) (*issuer, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", c.CAFile)
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	i := &issuer{config: c, client: &http.Client{Transport: transport, Timeout: issuerTimeout}}
	if c.KeysFile == "" {
		return i, nil
	}
	var err error
	i.verifier, err = fixed(c)
	return i, err
}

// fixed makes a verifier with the keys of a file.
func fixed(c issuerConfig) (*oidc.IDTokenVerifier, error) {
	var set jose.JSONWebKeySet
	if err := readJSON(c.KeysFile, &set); err != nil {
		return nil, err
	}
	keys := &oidc.StaticKeySet{}
	for _, key := range set.Keys {
		keys.PublicKeys = append(keys.PublicKeys, key.Key)
	}
	settings := &oidc.Config{SkipClientIDCheck: true}
	for _, algorithm := range supportedAlgorithms {
		settings.SupportedSigningAlgs = append(settings.SupportedSigningAlgs, string(algorithm))
	}
	return oidc.NewVerifier(c.Issuer, keys, settings), nil
}

// verify returns the subject of a token. Errors never contain the token.
func (i *issuer) verify(ctx context.Context, token string) (string, error) {
	verifier, err := i.current(ctx)
	if err != nil {
		return "", err
	}
	verified, err := verifier.Verify(ctx, token)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(verified.Audience, func(a string) bool { return slices.Contains(i.config.Audiences, a) }) {
		return "", fmt.Errorf("audiences %q are none of ours", verified.Audience)
	}
	claims := map[string]any{}
	if err := verified.Claims(&claims); err != nil {
		return "", err
	}
	subject, ok := claims[i.config.UsernameClaim].(string)
	if !ok || subject == "" {
		return "", fmt.Errorf("no claim %q", i.config.UsernameClaim)
	}
	return subject, nil
}

func (i *issuer) current(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	life := time.Duration(i.config.RediscoverSeconds) * time.Second
	if i.verifier != nil && (life == 0 || time.Since(i.discovered) < life) {
		return i.verifier, nil
	}
	i.verifier = nil
	ctx = oidc.ClientContext(ctx, i.client)
	provider, err := oidc.NewProvider(ctx, i.config.Issuer)
	if err != nil {
		return nil, err
	}
	// The audience is compared afterwards, since go-oidc takes only one.
	settings := &oidc.Config{SkipClientIDCheck: true}
	if i.config.PollSeconds == 0 {
		i.verifier = provider.VerifierContext(ctx, settings)
	} else if i.verifier, err = i.polling(provider, settings); err != nil {
		return nil, err
	}
	i.discovered = time.Now()
	return i.verifier, nil
}

// polling makes a verifier whose keys are read every PollSeconds and at no other time.
func (i *issuer) polling(provider *oidc.Provider, settings *oidc.Config) (*oidc.IDTokenVerifier, error) {
	var metadata struct {
		JWKSURI    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := provider.Claims(&metadata); err != nil {
		return nil, err
	}
	for _, algorithm := range metadata.Algorithms {
		// As go-oidc does: unknown ones are skipped, an empty list means RS256.
		if slices.Contains(supportedAlgorithms, jose.SignatureAlgorithm(algorithm)) {
			settings.SupportedSigningAlgs = append(settings.SupportedSigningAlgs, algorithm)
		}
	}
	keys := &polledKeys{url: metadata.JWKSURI, client: i.client, every: time.Duration(i.config.PollSeconds) * time.Second}
	return oidc.NewVerifier(i.config.Issuer, keys, settings), nil
}

var supportedAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384}

// polledKeys is a key set that learns of new keys only by its interval. A failed read keeps the keys it has.
type polledKeys struct {
	url    string
	client *http.Client
	every  time.Duration

	mu   sync.Mutex
	read time.Time
	keys jose.JSONWebKeySet
}

// VerifySignature implements oidc.KeySet.
func (p *polledKeys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	parsed, err := jose.ParseSigned(token, supportedAlgorithms)
	if err != nil {
		return nil, errors.New("malformed token")
	}
	keys, err := p.current(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range keys.Key(parsed.Signatures[0].Header.KeyID) {
		if payload, err := parsed.Verify(key); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("no polled key verifies the signature")
}

func (p *polledKeys) current(ctx context.Context) (jose.JSONWebKeySet, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.read.IsZero() && time.Since(p.read) < p.every {
		return p.keys, nil
	}
	keys, err := p.fetch(ctx)
	switch {
	case err == nil:
		p.keys = keys
	case p.read.IsZero():
		return keys, err
	}
	p.read = time.Now()
	return p.keys, nil
}

func (p *polledKeys) fetch(ctx context.Context) (keys jose.JSONWebKeySet, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, http.NoBody)
	if err != nil {
		return keys, err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return keys, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return keys, fmt.Errorf("key endpoint answered %s", response.Status)
	}
	return keys, json.NewDecoder(response.Body).Decode(&keys)
}

// claimedIssuer reads the iss claim of a token without verifying anything, to choose who shall verify it.
func claimedIssuer(token string) (string, error) {
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := claimedPart(token, 1, &claims); err != nil {
		return "", err
	}
	return claims.Issuer, nil
}

// claimedKey reads the kid of a token without verifying anything, for the access log; empty if there is none.
func claimedKey(token string) string {
	var header struct {
		KeyID string `json:"kid"`
	}
	if err := claimedPart(token, 0, &header); err != nil {
		return ""
	}
	return header.KeyID
}

func claimedPart(token string, index int, into any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("not a JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[index])
	if err != nil || json.Unmarshal(raw, into) != nil {
		return errors.New("not a JWT")
	}
	return nil
}
