package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// tokenPrefix tells our exchanged tokens from JWTs at a glance.
const tokenPrefix = "registry-token."

// tokenSigner makes and checks exchanged tokens: a payload and its HMAC-SHA-256 under a key of this process.
type tokenSigner struct {
	key []byte
}

// exchanged is the payload of a token of the realm.
type exchanged struct {
	Subject      string   `json:"sub"`
	Repositories []string `json:"repositories"`
	Expiry       int64    `json:"exp"`
}

func newTokenSigner() *tokenSigner {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key)
	return &tokenSigner{key: key}
}

func (s *tokenSigner) mac(payload string) string {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(payload))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (s *tokenSigner) sign(token exchanged) (string, error) {
	raw, err := json.Marshal(token)
	if err != nil {
		return "", err
	}
	payload := base64.RawURLEncoding.EncodeToString(raw)
	return tokenPrefix + payload + "." + s.mac(payload), nil
}

// parse returns the identity in a token of this realm, false for anything else and for expired ones.
func (s *tokenSigner) parse(value string) (identity, bool) {
	rest, ok := strings.CutPrefix(value, tokenPrefix)
	if !ok {
		return identity{}, false
	}
	payload, mac, ok := strings.Cut(rest, ".")
	if !ok || !hmac.Equal([]byte(mac), []byte(s.mac(payload))) {
		return identity{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return identity{}, false
	}
	var token exchanged
	if err := json.Unmarshal(raw, &token); err != nil || time.Now().Unix() >= token.Expiry {
		return identity{}, false
	}
	repositories := slices.Concat([]string{}, token.Repositories)
	return identity{kind: kindToken, subject: token.Subject, repositories: repositories}, true
}

// issueToken is the token endpoint (the distribution project's token authentication specification): GET with service
// and scope, Basic any:jwt, a client certificate, or nothing for what is readable by anybody. As there, a scope that is
// not granted is left out of the token instead of refusing it.
func (s *server) issueToken(w http.ResponseWriter, r *http.Request, log *record) {
	who, err := s.authenticator.realm(r)
	log.Kind, log.Subject, log.Key = who.kind, who.subject, who.key
	if err != nil {
		log.Reason = err.Error()
		w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
		writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	if service := r.URL.Query().Get("service"); service != s.service {
		log.Reason = "unknown service"
		writeError(w, http.StatusBadRequest, "UNSUPPORTED", "unknown service")
		return
	}
	granted := []string{}
	for _, scope := range strings.Fields(strings.Join(r.URL.Query()["scope"], " ")) {
		name, ok := pullScope(scope)
		if ok && s.mayRead(who, name) == nil {
			granted = append(granted, name)
		}
	}
	life := time.Duration(s.config.Token.TTLSeconds) * time.Second
	token, err := s.tokens.sign(exchanged{Subject: who.subject, Repositories: granted, Expiry: time.Now().Add(life).Unix()})
	if err != nil {
		writeError(w, http.StatusInternalServerError, "UNKNOWN", "cannot sign")
		return
	}
	field := "token"
	if s.config.Token.AccessToken {
		field = "access_token"
	}
	answer := map[string]any{field: token}
	if !s.config.Token.OmitExpiry {
		answer["expires_in"] = s.config.Token.TTLSeconds
	}
	writeJSON(w, http.StatusOK, answer)
}

// realm authenticates at the token endpoint, where a JWT is always a password.
func (a *authenticator) realm(r *http.Request) (identity, error) {
	if strings.HasPrefix(r.Header.Get("Authorization"), "Basic ") {
		return a.basic(r, true)
	}
	if r.Header.Get("Authorization") != "" {
		return identity{}, refuse("the realm takes basic authorization")
	}
	return a.authenticate(r)
}

// pullScope returns the repository of "repository:<name>:pull[,…]".
func pullScope(scope string) (string, bool) {
	rest, ok := strings.CutPrefix(scope, "repository:")
	colon := strings.LastIndex(rest, ":")
	if !ok || colon < 0 || !slices.Contains(strings.Split(rest[colon+1:], ","), "pull") {
		return "", false
	}
	return rest[:colon], true
}
