package caddysnake

import (
	"net/http"
	"strings"
	"testing"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

// headOf is the head of a RESPONSE with one header, as an ASGI worker (bytes) or a WSGI worker (str) sends it.
func headOf(name, value string, isStr bool) []byte {
	text := marshal.AppendBytes
	if isStr {
		text = marshal.AppendLatin1
	}
	b := marshal.AppendInt(marshal.AppendTuple(nil, 2), 200)
	return text(text(marshal.AppendTuple(marshal.AppendList(b, 1), 2), name), value)
}

// The worker checks its headers too; here a worker that does not is at the other end.
func TestThreat5EveryByteInAHeader(t *testing.T) {
	const token = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for _, isStr := range []bool{false, true} {
		for c := range 256 {
			char := string([]byte{byte(c)})

			h := http.Header{}
			_, err := setHeaders(h, headOf("X"+char+"Y", "v", isStr))
			if legal := c < 128 && strings.Contains(token, char); (err == nil) != legal {
				t.Errorf("byte %#x in a name, str %t: %v", c, isStr, err)
			}

			h = http.Header{}
			_, err = setHeaders(h, headOf("X-Y", "a"+char+"b", isStr))
			if legal := c == '\t' || c >= ' ' && c != 0x7f; (err == nil) != legal {
				t.Errorf("byte %#x in a value, str %t: %v", c, isStr, err)
			}
			if err == nil && h.Get("X-Y") != "a"+char+"b" {
				t.Errorf("byte %#x in a value, str %t, became %q", c, isStr, h.Get("X-Y"))
			}
		}
	}
}

func TestThreat5CharactersWhoseLowByteIsALineEnd(t *testing.T) {
	for _, value := range []string{"v\u010d\u010aX-Injected: yes", "v\u560d\u560a", "v\U0001f60d"} {
		head := marshal.AppendInt(marshal.AppendTuple(nil, 2), 200)
		head = marshal.AppendTuple(marshal.AppendList(head, 1), 2)
		head = marshal.AppendString(marshal.AppendString(head, "X-Y"), value)
		h := http.Header{}
		if _, err := setHeaders(h, head); err == nil {
			t.Errorf("%q became %q", value, h.Get("X-Y"))
		}
	}
}
