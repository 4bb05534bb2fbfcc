package main

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Kinds of identity, as they stand in the access log.
const (
	kindAnonymous = "anonymous"
	kindBearer    = "bearer"
	kindMTLS      = "mtls"
	kindBasic     = "basic"
	kindToken     = "token"
)

// identity is who a request turned out to be from.
type identity struct {
	kind    string
	subject string
	admin   bool
	// key names the key that signed what was presented, whether it verified or not.
	key string
	// repositories limits an exchanged token to what it was asked for; nil means no limit.
	repositories []string
}

// errUnauthenticated wraps every reason for a 401.
var errUnauthenticated = errors.New("unauthenticated")

func refuse(format string, arguments ...any) error {
	return fmt.Errorf("%w: %s", errUnauthenticated, fmt.Errorf(format, arguments...))
}

// authenticator finds the identity behind a request. A request that presents something wrong is refused; it does not
// become anonymous, nor what its client certificate says.
type authenticator struct {
	accept  []string
	admin   basicConfig
	issuers []*issuer
	tokens  *tokenSigner
}

func (a *authenticator) authenticate(r *http.Request) (identity, error) {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return a.bearer(r.Context(), strings.TrimSpace(value))
	case strings.EqualFold(scheme, "Basic"):
		return a.basic(r, slices.Contains(a.accept, "basic"))
	case scheme != "":
		return identity{}, refuse("unknown authorization scheme")
	case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		return fromCertificate(r.TLS.PeerCertificates[0])
	}
	return identity{kind: kindAnonymous}, nil
}

func (a *authenticator) bearer(ctx context.Context, value string) (identity, error) {
	if exchanged, ok := a.tokens.parse(value); ok {
		return exchanged, nil
	}
	if !slices.Contains(a.accept, "bearer") {
		return identity{kind: kindBearer}, refuse("a token of the realm is wanted, not the credential itself")
	}
	return a.jwt(ctx, value, kindBearer)
}

// basic takes the admin's password and, where allowed, a JWT in the place of a password.
func (a *authenticator) basic(r *http.Request, jwtAllowed bool) (identity, error) {
	username, password, ok := r.BasicAuth()
	if !ok {
		return identity{kind: kindBasic}, refuse("malformed basic authorization")
	}
	if a.admin.Password != "" && username == a.admin.Username {
		if subtle.ConstantTimeCompare([]byte(password), []byte(a.admin.Password)) == 1 {
			return identity{kind: kindBasic, subject: username, admin: true}, nil
		}
		return identity{kind: kindBasic}, refuse("wrong password")
	}
	if !jwtAllowed {
		return identity{kind: kindBasic}, refuse("no basic authentication with a JWT here")
	}
	return a.jwt(r.Context(), password, kindBasic)
}

func (a *authenticator) jwt(ctx context.Context, token, kind string) (identity, error) {
	key := claimedKey(token)
	claimed, err := claimedIssuer(token)
	if err != nil {
		return identity{kind: kind, key: key}, refuse("%w", err)
	}
	err = fmt.Errorf("issuer %q is not trusted here", claimed)
	for _, candidate := range a.issuers {
		if candidate.config.Issuer != claimed {
			continue
		}
		var subject string
		if subject, err = candidate.verify(ctx, token); err == nil {
			return identity{kind: kind, subject: subject, key: key}, nil
		}
	}
	return identity{kind: kind, key: key}, refuse("%w", err)
}

// fromCertificate takes the identity from a verified certificate: its only URI SAN.
func fromCertificate(certificate *x509.Certificate) (identity, error) {
	key := hex.EncodeToString(certificate.AuthorityKeyId)
	if len(certificate.URIs) != 1 {
		return identity{kind: kindMTLS, key: key}, refuse("the certificate has %d URI SANs, not one", len(certificate.URIs))
	}
	return identity{kind: kindMTLS, subject: certificate.URIs[0].String(), key: key}, nil
}
