package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// timeout bounds every request to an issuer or bundle endpoint.
const timeout = 10 * time.Second

func (o *options) client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.ca != "" {
		raw, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("no certificate in %s", o.ca)
		}
	}
	return &http.Client{Timeout: timeout, Transport: &http.Transport{TLSClientConfig: config}}, nil
}

func (o *options) loadBundle() (*spiffebundle.Bundle, error) {
	if err := require([2]string{"bundle", o.bundle}, [2]string{"trust-domain", o.trustDomain}); err != nil {
		return nil, err
	}
	td, err := spiffeid.TrustDomainFromString(o.trustDomain)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(o.bundle, "http://") && !strings.HasPrefix(o.bundle, "https://") {
		return spiffebundle.Load(td, o.bundle)
	}
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	response, err := client.Get(o.bundle)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("bundle endpoint answered %s", response.Status)
	}
	return spiffebundle.Read(td, response.Body)
}

func checkBundle(o *options) (map[string]any, error) {
	bundle, err := o.loadBundle()
	if err != nil {
		return nil, err
	}
	authorities := []string{}
	for _, authority := range bundle.X509Authorities() {
		authorities = append(authorities, authority.Subject.String())
	}
	answer := map[string]any{
		"trustDomain":     bundle.TrustDomain().String(),
		"x509Authorities": authorities,
		"jwtKeyIDs":       slices.Sorted(maps.Keys(bundle.JWTAuthorities())),
	}
	if hint, ok := bundle.RefreshHint(); ok {
		answer["refreshHintSeconds"] = int(hint.Seconds())
	}
	if sequence, ok := bundle.SequenceNumber(); ok {
		answer["sequence"] = sequence
	}
	return answer, nil
}

func checkX509(o *options) (map[string]any, error) {
	if err := require([2]string{"chain", o.chain}); err != nil {
		return nil, err
	}
	bundle, err := o.loadBundle()
	if err != nil {
		return nil, err
	}
	at, err := o.time()
	if err != nil {
		return nil, fmt.Errorf("%w: -at: %w", errUsage, err)
	}
	raw, err := os.ReadFile(o.chain)
	if err != nil {
		return nil, err
	}
	certificates, err := parseChain(raw)
	if err != nil {
		return nil, err
	}
	id, chains, err := x509svid.Verify(certificates, bundle, x509svid.WithTime(at))
	if err != nil {
		return nil, err
	}
	leaf := certificates[0]
	return map[string]any{
		"subject":   id.String(),
		"chain":     len(chains[0]),
		"serial":    hex.EncodeToString(leaf.SerialNumber.Bytes()),
		"issuer":    leaf.Issuer.String(),
		"notBefore": leaf.NotBefore,
		"notAfter":  leaf.NotAfter,
	}, nil
}

func checkJWT(o *options) (map[string]any, error) {
	if len(o.audiences) == 0 {
		return nil, fmt.Errorf("%w: -audience is required", errUsage)
	}
	bundle, err := o.loadBundle()
	if err != nil {
		return nil, err
	}
	token, err := o.readToken()
	if err != nil {
		return nil, err
	}
	svid, err := jwtsvid.ParseAndValidate(token, bundle, o.audiences)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"subject":   svid.ID.String(),
		"audiences": svid.Audience,
		"expiry":    svid.Expiry,
		"claims":    svid.Claims,
	}, nil
}

func checkOIDC(o *options) (map[string]any, error) {
	if err := require([2]string{"issuer", o.issuer}); err != nil {
		return nil, err
	}
	if len(o.audiences) != 1 {
		return nil, fmt.Errorf("%w: exactly one -audience", errUsage)
	}
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	token, err := o.readToken()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(context.Background(), client), timeout)
	defer cancel()
	provider, err := oidc.NewProvider(ctx, o.issuer)
	if err != nil {
		return nil, err
	}
	verified, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: o.audiences[0]}).Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"subject":   verified.Subject,
		"issuer":    verified.Issuer,
		"audiences": verified.Audience,
		"expiry":    verified.Expiry,
	}, nil
}

func parseChain(pemBytes []byte) ([]*x509.Certificate, error) {
	certificates := []*x509.Certificate{}
	for block, rest := decodePEM(pemBytes); block != nil; block, rest = decodePEM(rest) {
		certificate, err := x509.ParseCertificate(block)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, errors.New("no certificate in the chain file")
	}
	return certificates, nil
}

// decodePEM returns the DER of the next certificate block, nil at the end.
func decodePEM(pemBytes []byte) (der, rest []byte) {
	for {
		var block *pem.Block
		if block, pemBytes = pem.Decode(pemBytes); block == nil {
			return nil, nil
		}
		if block.Type == "CERTIFICATE" {
			return block.Bytes, pemBytes
		}
	}
}
