//go:build !windows

package caddysnake

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// testHTTP3 serves requests with the pool over HTTP/3, with the server that Caddy has, and returns a client and its URL.
func testHTTP3(t *testing.T, p *pool) (*http.Client, string) {
	t.Helper()
	secure := httptest.NewUnstartedServer(nil)
	secure.StartTLS() // for its certificate alone
	t.Cleanup(secure.Close)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http3.Server{
		Handler:   testHandler(t, p),
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: secure.TLS.Certificates}),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(conn)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		_ = conn.Close()
		<-served
	})
	roots := secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	transport := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
	t.Cleanup(func() { _ = transport.Close() })
	return &http.Client{Transport: transport}, "https://" + conn.LocalAddr().String()
}

// trailersHead is the head of a TRAILERS frame.
func trailersHead(name, value string) []byte {
	b := marshal.AppendTuple(marshal.AppendList(nil, 1), 2)
	return marshal.AppendBytes(marshal.AppendBytes(b, name), value)
}

func TestHTTP3HintsAndTrailers(t *testing.T) {
	const link = "</style.css>; rel=preload"
	client, url := testHTTP3(t, testPool(t, settings{Interface: interfaceASGI}, answer(
		wire.Frame{Type: wire.Hint, Data: []byte(link)},
		wire.Frame{Type: wire.Response, Head: responseHead(200), Data: []byte("Hello")},
		wire.Frame{Type: wire.Trailers, End: true, Head: trailersHead("x-sum", "5")},
	)))
	var hints []string
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			if status == http.StatusEarlyHints {
				hints = append(hints, header["Link"]...)
			}
			return nil
		},
	})
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("TE", "trailers")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 || string(body) != "Hello" || response.Proto != "HTTP/3.0" {
		t.Errorf("got %s %d %q, %v", response.Proto, response.StatusCode, body, err)
	}
	if !slices.Equal(hints, []string{link}) {
		t.Errorf("got the hints %q, want %q", hints, link)
	}
	if response.Header.Get("Link") != "" {
		t.Error("the hint's Link is in the response too")
	}
	if got := response.Trailer.Get("X-Sum"); got != "5" {
		t.Errorf("got the trailers %v, want x-sum", response.Trailer)
	}
}

// A request seldom says that it has no body, and is repeated like any other when its worker dies.
func TestHTTP3ReplaysRequestsWithoutABody(t *testing.T) {
	for _, name := range []string{interfaceWSGI, interfaceASGI} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			p := testPool(t, settings{Interface: name, Threads: 1}, func(f wire.Frame) ([]wire.Frame, error) {
				switch {
				case f.Type != wire.Request:
					return nil, nil
				case asked.Add(1) == 1:
					return nil, errDie
				default:
					return []wire.Frame{{Type: wire.Response, End: true, Head: responseHead(200)}}, nil
				}
			})
			client, url := testHTTP3(t, p)
			response, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != 200 || asked.Load() != 2 {
				t.Errorf("got %d after %d tries, want 200 after 2", response.StatusCode, asked.Load())
			}
		})
	}
}

// The app is told of the version, and gets a body of many frames.
func TestHTTP3Bodies(t *testing.T) {
	for name, version := range map[string][]byte{
		interfaceWSGI: marshal.AppendLatin1(nil, "HTTP/3.0"),
		interfaceASGI: marshal.AppendString(marshal.AppendString(nil, "https"), "3"),
	} {
		t.Run(name, func(t *testing.T) {
			told := make(chan []byte, 1)
			echo := echoBody()
			p := testPool(t, settings{Interface: name, Threads: 1}, func(f wire.Frame) ([]wire.Frame, error) {
				if f.Type == wire.Request {
					told <- bytes.Clone(f.Head)
				}
				return echo(f)
			})
			client, url := testHTTP3(t, p)
			const size = wire.Window + wire.MaxData + 1
			response, err := client.Post(url, "application/octet-stream", bytes.NewReader(make([]byte, size)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil || string(body) != "327681" {
				t.Errorf("got %d %q, %v, want %d", response.StatusCode, body, err, size)
			}
			if head := <-told; !bytes.Contains(head, version) {
				t.Errorf("the app is not told of %q: %q", version, head)
			}
		})
	}
}
