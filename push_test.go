//go:build !windows

package caddysnake

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/mliezun/caddy-snake/internal/wire"
)

// A part of the response comes back for each part of the body, before the next one is sent.
func TestPushPassesEachPartOnBeforeTheNextIsMade(t *testing.T) {
	p := testPool(t, settings{Interface: interfaceASGI}, func(f wire.Frame) ([]wire.Frame, error) {
		switch {
		case f.Type == wire.Request:
			credit := binary.LittleEndian.AppendUint32(nil, wire.Window)
			return []wire.Frame{{Type: wire.Response, Head: responseHead(200), Data: f.Data}, {Type: wire.Credit, Data: credit}}, nil
		case f.Type == wire.Data && (len(f.Data) > 0 || f.End):
			return []wire.Frame{{Type: wire.Data, End: f.End, Data: f.Data}}, nil
		default:
			return nil, nil
		}
	})
	var sockets int
	server := httptest.NewUnstartedServer(testHandler(t, p))
	server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		ctx = withClientConn(ctx, conn)
		if clientConn(ctx) != nil {
			sockets++
		}
		return ctx
	}
	server.Start()
	t.Cleanup(server.Close)

	body, parts := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "POST", server.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = fmt.Fprint(parts, "begun") }()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	got := make([]byte, 100)
	for n := range 5 * pushAfter {
		want := "begun"
		if n > 0 {
			want = fmt.Sprintf("part %d", n)
			if _, err := fmt.Fprint(parts, want); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(response.Body, got[:len(want)]); err != nil || string(got[:len(want)]) != want {
			t.Fatalf("got %q, %v, want %q", got[:len(want)], err, want)
		}
	}
	_ = parts.Close()
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 {
		t.Errorf("got %q behind all parts, %v", rest, err)
	}
	if sockets != 1 {
		t.Errorf("%d clients' sockets were found, want 1", sockets)
	}
}

func TestPushOnlyThroughWritersThatAreKnown(t *testing.T) {
	if w := httptest.NewRecorder(); writesAtOnce(w) {
		t.Errorf("%T is taken for a writer that waits for nothing", w)
	}
	if w := (struct{ http.ResponseWriter }{}); writesAtOnce(w) {
		t.Errorf("%T is taken for a writer that waits for nothing", w)
	}
}
