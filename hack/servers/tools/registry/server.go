package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/api/v2"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/gorilla/mux"
)

// server stands in front of the distribution library: it authenticates, authorises and records every request, and hands
// over what is allowed.
type server struct {
	config        *config
	authenticator *authenticator
	tokens        *tokenSigner
	log           *accessLog
	routes        *mux.Router
	registry      http.Handler

	// draining is set when the registry is about to end.
	draining atomic.Bool
	// connected counts the open connections.
	connected atomic.Int64

	// Known once the listeners are bound.
	service string
	realm   string
}

func newServer(c *config) (*server, error) {
	log, err := newAccessLog(c.AccessLog)
	if err != nil {
		return nil, err
	}
	tokens := newTokenSigner()
	a := &authenticator{accept: c.Accept, admin: c.Admin, tokens: tokens}
	for _, ic := range c.Issuers {
		i, err := newIssuer(ic)
		if err != nil {
			return nil, fmt.Errorf("issuer %s: %w", ic.Issuer, err)
		}
		a.issuers = append(a.issuers, i)
	}
	library := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem":  configuration.Parameters{"rootdirectory": c.Storage},
			"delete":      configuration.Parameters{"enabled": true},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		},
	}
	library.Log.Level = "error"
	library.HTTP.RelativeURLs = true
	library.Catalog.MaxEntries = 1000
	return &server{
		config:        c,
		authenticator: a,
		tokens:        tokens,
		log:           log,
		routes:        v2.Router(),
		registry:      handlers.NewApp(context.Background(), library),
	}, nil
}

// ServeHTTP implements http.Handler for the registry's origin.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.recorded(w, r, func(w http.ResponseWriter, line *record) {
		if r.URL.Path == tokenPath && s.realm != "" && s.config.Token.Listen == "" {
			s.issueToken(w, r, line)
			return
		}
		s.serveRegistry(w, r, line)
	})
}

// tokenOrigin is the handler of a token endpoint on an origin of its own.
func (s *server) tokenOrigin(w http.ResponseWriter, r *http.Request) {
	s.recorded(w, r, func(w http.ResponseWriter, line *record) {
		if r.URL.Path != tokenPath {
			http.NotFound(w, r)
			return
		}
		s.issueToken(w, r, line)
	})
}

func (s *server) recorded(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *record)) {
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	line := newRecord(r)
	counted := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	serve(counted, line)
	line.Status = counted.status
	s.log.write(line)
}

// drainOnSignal returns a channel that is closed when the registry may end gracefully after SIGTERM: every client that was
// connected has been told with an answer to connect again, so that no request is lost, or the time for that is over.
func (s *server) drainOnSignal() <-chan struct{} {
	ended := make(chan struct{})
	if s.config.DrainMilliseconds == 0 {
		return ended
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		s.draining.Store(true)
		deadline := time.Now().Add(time.Duration(s.config.DrainMilliseconds) * time.Millisecond)
		for s.connected.Load() > 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		close(ended)
	}()
	return ended
}

// count is the ConnState of the servers.
func (s *server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.connected.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.connected.Add(-1)
	}
}

func (s *server) serveRegistry(w http.ResponseWriter, r *http.Request, line *record) {
	who, err := s.authenticator.authenticate(r)
	line.Kind, line.Subject, line.Key = who.kind, who.subject, who.key
	name := s.repository(r)
	if err == nil {
		err = s.authorize(who, r.Method, r.URL.Path, name)
	}
	switch {
	case err == nil:
		s.registry.ServeHTTP(w, r)
	case errors.Is(err, errUnauthenticated):
		line.Reason = err.Error()
		w.Header().Set("WWW-Authenticate", s.challenge(name))
		writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	default:
		line.Reason = err.Error()
		writeError(w, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
	}
}

// repository returns the repository a request is about, empty for the base and the catalogue.
func (s *server) repository(r *http.Request) string {
	var match mux.RouteMatch
	if s.routes.Match(r, &match) {
		return match.Vars["name"]
	}
	return ""
}

func (s *server) authorize(who identity, method, path, name string) error {
	switch {
	case who.admin:
		return nil
	case method != http.MethodGet && method != http.MethodHead:
		return s.mayNot(who, "only the administrator writes")
	case name == "" && path != "/v2/":
		return s.mayNot(who, "only the administrator lists")
	case name == "" && who.kind == kindAnonymous:
		return refuse("no credential")
	case name == "":
		// By the base a client asks whether it is authenticated.
		return nil
	case who.repositories != nil && !slices.Contains(who.repositories, name):
		return fmt.Errorf("the token is not for %s", name)
	}
	return s.mayRead(who, name)
}

func (s *server) mayRead(who identity, name string) error {
	var rules policy
	if err := readJSON(s.config.Policy, &rules); err != nil {
		return err
	}
	switch {
	case who.admin, slices.Contains(rules.Anonymous, name):
		return nil
	case who.subject != "" && slices.Contains(rules.Readers[name], who.subject):
		return nil
	}
	return s.mayNot(who, "not a reader of "+name)
}

// mayNot asks the anonymous to authenticate and tells the others no.
func (s *server) mayNot(who identity, reason string) error {
	if who.kind == kindAnonymous {
		return refuse("no credential")
	}
	return errors.New(reason)
}

// challenge is the WWW-Authenticate value of a 401 (RFC 9110 section 11.6.1).
func (s *server) challenge(name string) string {
	scope := ""
	if name != "" {
		scope = "repository:" + name + ":pull"
	}
	switch {
	case s.realm != "":
		return fmt.Sprintf("Bearer realm=%q,service=%q,scope=%q", s.realm, s.service, scope)
	case slices.Contains(s.config.Accept, "bearer"):
		return `Bearer realm="registry"`
	}
	return `Basic realm="registry"`
}

// writeError answers in the form of the OCI distribution specification, section "Error Codes".
func writeError(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
