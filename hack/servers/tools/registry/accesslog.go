package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// record is one line of the access log: what the registry saw. It never holds a token, a password or a query.
type record struct {
	Time    time.Time `json:"time"`
	Method  string    `json:"method"`
	Host    string    `json:"host"`
	Path    string    `json:"path"`
	Status  int       `json:"status"`
	Kind    string    `json:"kind"`
	Subject string    `json:"subject"`
	Reason  string    `json:"reason,omitempty"`
	// Key names the key behind what was presented, taken or not: the kid of a JWT, or the authority key id of a client
	// certificate in hexadecimal.
	Key    string `json:"key,omitempty"`
	Remote string `json:"remote"`
	// Connection numbers the connections of this process from 1.
	Connection uint64 `json:"connection"`
	// Certificate is the URI SAN of the client certificate of the connection, whatever the request then presented.
	Certificate string `json:"certificate,omitempty"`
	// Resumed says that the TLS session was resumed.
	Resumed   bool   `json:"resumed"`
	UserAgent string `json:"user_agent"`
}

type connectionKey struct{}

var connections atomic.Uint64

// numberConnection is the ConnContext of the servers.
func numberConnection(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connections.Add(1))
}

func newRecord(r *http.Request) *record {
	number, _ := r.Context().Value(connectionKey{}).(uint64)
	line := &record{
		Time: time.Now().UTC(), Method: r.Method, Host: r.Host, Path: r.URL.Path, Remote: r.RemoteAddr,
		Connection: number, UserAgent: r.UserAgent(), Kind: kindAnonymous,
	}
	if r.TLS != nil {
		line.Resumed = r.TLS.DidResume
		if peers := r.TLS.PeerCertificates; len(peers) > 0 && len(peers[0].URIs) > 0 {
			line.Certificate = peers[0].URIs[0].String()
		}
	}
	return line
}

type accessLog struct {
	mu  sync.Mutex
	out io.Writer
}

func newAccessLog(path string) (*accessLog, error) {
	if path == "" {
		return &accessLog{out: io.Discard}, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &accessLog{out: file}, err
}

func (l *accessLog) write(line *record) {
	raw, err := json.Marshal(line)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.out.Write(append(raw, '\n'))
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach what is below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
