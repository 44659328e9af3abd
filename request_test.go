package caddysnake

import (
	"bufio"
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

// pieces make request targets that parsers have disagreed about.
var pieces = []string{
	"/", "/", "/", "//", "a", "b", "api", "API", "%61pi", "apı", "\u212a", "\u0130", "ſ", "ẞ", ".", "..", "%2e", "%2E%2e", "%2f",
	"%2F", "%5c", "\\", "%25", "%252f", "%00", "%0a", "%0d%0a", "%20", "%", "%z", "%7", "%ff", "%C3%AB", "ë", "\xff", "\xc3",
	"?", "?", "#", ";", ";a=b", "&", "=", ":", "@", "*", "+", ",", "!", "'", "(", ")", "[", "]", "{", "}", "|", "^", "`", "~", "\"", "<", ">",
}

// target makes a request target, most of them legal.
func target(random *rand.Rand) string {
	var b strings.Builder
	b.WriteString([]string{"/", "/", "/", "/api/", "/api/", "/API/", "/%61pi/", "//", "/api", "http://h/"}[random.IntN(10)])
	for range random.IntN(8) {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	return b.String()
}

// requestTo reads a request as a server would, or returns nil if its target is refused.
func requestTo(target string) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")))
	if err != nil {
		return nil
	}
	vars := map[string]any{caddyhttp.ClientIPVarKey: "192.0.2.1", caddyhttp.TrustedProxyVarKey: false}
	ctx := context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars)
	original := *r
	originalURL := *r.URL
	original.URL = &originalURL
	return r.WithContext(context.WithValue(ctx, caddyhttp.OriginalRequestCtxKey, original))
}

// split is what a target says, read here by hand: the path as it was sent, the path decoded, the query.
func split(target string) (raw, path, query string) {
	raw, query, _ = strings.Cut(target, "?")
	raw = strings.TrimPrefix(raw, "http://h")
	for i := 0; i < len(raw); i++ {
		if raw[i] == '%' {
			path += string([]byte{hexDigit(raw[i+1])<<4 | hexDigit(raw[i+2])})
			i += 2
		} else {
			path += raw[i : i+1]
		}
	}
	return raw, path, query
}

func hexDigit(c byte) byte { return byte(strings.IndexByte("0123456789abcdef", c|' ')) & 15 }

func asLatin1(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

// The first names of the tuples that appendEnviron and appendScope make.
var (
	environNames = []string{"REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI"}
	scopeNames   = []string{"method", "scheme", "http_version", "root_path", "path", "raw_path", "query_string", "headers"}
)

// told returns what both interfaces are told of a request.
func told(t *testing.T, req request) (environ, scope map[string]any) {
	t.Helper()
	environ, scope = map[string]any{}, map[string]any{}
	for _, made := range []struct {
		told  map[string]any
		names []string
		head  []byte
	}{
		{environ, environNames, appendEnviron(nil, &req)},
		{scope, scopeNames, appendScope(nil, &req)},
	} {
		value, err := marshal.Decode(made.head)
		if err != nil {
			t.Fatal(err)
		}
		values := value.([]any)
		for i, name := range made.names {
			made.told[name] = values[i]
		}
		if others, ok := values[len(values)-1].(map[string]any); ok {
			maps.Copy(made.told, others)
		}
	}
	return environ, scope
}

func targets() int {
	if os.Getenv("CADDYSNAKE_SIEGE") == "1" {
		return 1_000_000
	}
	return 100_000
}

// TestThreat11TargetsAgreeWithGosParse holds what the app is told of a target against Go's parse and against one by hand.
func TestThreat11TargetsAgreeWithGosParse(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 1))
	legal := 0
	for range targets() {
		target := target(random)
		r := requestTo(target)
		if r == nil {
			continue
		}
		legal++
		raw, path, query := split(target)
		environ, scope := told(t, newRequest(r, rootPathAuto))
		for name, check := range map[string]struct{ got, want any }{
			"URL.Path":     {r.URL.Path, path},
			"SCRIPT_NAME":  {environ["SCRIPT_NAME"], ""},
			"PATH_INFO":    {environ["PATH_INFO"], asLatin1(path)},
			"QUERY_STRING": {environ["QUERY_STRING"], asLatin1(query)},
			"REQUEST_URI":  {environ["REQUEST_URI"], asLatin1(target)},
			"root_path":    {scope["root_path"], ""},
			"path":         {scope["path"], string([]rune(path))}, // what is no UTF-8 becomes U+FFFD
			"raw_path":     {string(scope["raw_path"].([]byte)), raw},
			"query_string": {string(scope["query_string"].([]byte)), query},
		} {
			if check.got != check.want {
				t.Fatalf("target %q: %s is %q, want %q", target, name, check.got, check.want)
			}
		}
	}
	if legal < targets()/4 {
		t.Errorf("%d of %d targets were legal: this tests too little", legal, targets())
	}
}

// TestThreat11TheMountPointAgreesWithCaddysPath strips a prefix from targets as handle_path does. The path is what Caddy
// made of it, the mount point is what was removed, and together they are the original path as Caddy cleans it.
func TestThreat11TheMountPointAgreesWithCaddysPath(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 2))
	strip := rewrite.Rewrite{StripPathPrefix: "/api"}
	mounted := 0
	for range targets() {
		target := target(random)
		r := requestTo(target)
		if r == nil {
			continue
		}
		_, original, _ := split(target)
		_, whole, _ := split(caddyhttp.CleanPath(r.URL.EscapedPath(), true))
		strip.Rewrite(r, caddy.NewReplacer())
		environ, scope := told(t, newRequest(r, rootPathAuto))
		mount, path := environ["SCRIPT_NAME"].(string), environ["PATH_INFO"].(string)
		if path != asLatin1(r.URL.Path) || scope["path"] != string([]rune(mount+r.URL.Path)) || scope["root_path"] != mount {
			t.Fatalf("target %q: mounted at %q, PATH_INFO is %q, path %q", target, mount, path, scope["path"])
		}
		if environ["REQUEST_URI"] != asLatin1(target) {
			t.Fatalf("target %q: REQUEST_URI is %q", target, environ["REQUEST_URI"])
		}
		if mount != "" && (mount[0] != '/' || caddyhttp.CleanPath(mount, true) != mount ||
			mount+path != asLatin1(whole) && mount+path != asLatin1(whole)+"/") {
			t.Fatalf("target %q: mounted at %q, PATH_INFO is %q", target, mount, path)
		}
		if rest, found := strings.CutPrefix(original, "/api/"); found && caddyhttp.CleanPath("/"+rest, true) == "/"+rest && mount != "/api" {
			t.Fatalf("target %q: mounted at %q", target, mount)
		}
		if mount != "" {
			mounted++
		}
	}
	if mounted < targets()/20 {
		t.Errorf("%d of %d targets were mounted: this tests too little", mounted, targets())
	}
}
