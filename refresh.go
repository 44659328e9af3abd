package caddysnake

import (
	"crypto/rand"
	"fmt"
	"html/template"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// With `autoreload browser`, each HTML page gets a script that listens to events at the page's own path, with a query that
// is ours: whatever routes the page to the app routes this to the handler too. docs/adr/0015-refresh.md has the reasons.

// refreshQuery is the parameter of that query. Its value is the edition that the page was made in.
const refreshQuery = "caddysnake-refresh"

// refreshPing is how often a page that waits is sent something, so that a connection that has gone is noticed.
const refreshPing = 30 * time.Second

// refreshScript reloads the page when another edition is there. It goes behind the page's last tag, where browsers take it as
// part of the body. One to a window is enough: a browser has few connections for a host, and each lasts as long as the page.
var refreshScript = template.Must(template.New("refresh").Parse(
	`<script{{with .Nonce}} nonce="{{.}}"{{end}}>window.caddysnakeRefresh||` +
		`(window.caddysnakeRefresh=new EventSource(location.pathname+"?` + refreshQuery +
		`="+{{.Edition}})).addEventListener("refresh",()=>location.reload())</script>
`))

func writeRefreshScript(w io.Writer, nonce, edition string) error {
	return refreshScript.Execute(w, struct{ Nonce, Edition string }{nonce, edition})
}

// launchID tells the editions of one start of Caddy from those of another.
var launchID = rand.Text()

// edition names what pages are made of at present: it changes with the pool, and with the reason why there is none. changed
// is closed then.
func (ref *poolRef) edition() (name string, changed <-chan struct{}) {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	return editionName(ref.editions), ref.revised
}

// editionOf names the edition of a page that p makes, or that tells why.
func (ref *poolRef) editionOf(p *pool, why error) string {
	ref.mu.Lock()
	defer ref.mu.Unlock()
	if ref.pool.Load() != p || ref.failure != why {
		return editionName(0) // an old one
	}
	return editionName(ref.editions)
}

func editionName(number uint64) string { return fmt.Sprintf("%s-%d", launchID, number) }

// revise begins another edition. It is called with mu held.
func (ref *poolRef) revise() {
	ref.editions++
	close(ref.revised)
	ref.revised = make(chan struct{})
}

// refreshes tells whether the response to r, if it is a page, is to reload itself.
func (h *Handler) refreshes(r *http.Request) bool {
	return h.Autoreload == autoreloadBrowser && makesDocument(r)
}

// makesDocument tells whether a browser shows the response to r as a document (Fetch Metadata Request Headers, section 2.1),
// as far as is known. What a script asks for may be a part that it puts into one, where the part's own scripts run too.
func makesDocument(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Dest") {
	case "document", "iframe", "frame", "embed", "object":
		return true
	case "": // an old browser, or one that does not trust http:// with it
		return r.Header.Get("X-Requested-With") != "XMLHttpRequest" && r.Header.Get("HX-Request") == ""
	}
	return false
}

// asksForRefresh tells whether r is from the script.
func asksForRefresh(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Query().Has(refreshQuery) && r.Header.Get("Accept") == "text/event-stream"
}

// serveRefresh answers the script: one event when the page's edition is not the newest any more.
func (h *Handler) serveRefresh(w http.ResponseWriter, r *http.Request, ref *poolRef) error {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	say := func(text string) error {
		_, err := io.WriteString(w, text)
		if err == nil {
			err = control.Flush()
		}
		return err
	}
	if say("retry: 1000\n\n") != nil {
		return nil
	}
	ping := time.NewTicker(refreshPing)
	defer ping.Stop()
	for {
		name, changed := ref.edition()
		if name != r.URL.Query().Get(refreshQuery) {
			_ = say("event: refresh\ndata: \n\n")
			return nil
		}
		select {
		case <-changed:
		case <-ping.C:
			if say(": still here\n\n") != nil {
				return nil
			}
		case <-h.app.leaving: // or the server would wait for this
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// refreshing returns r and w for a request whose response is to get the script. The app must send it as it is, and whole.
func (h *Handler) refreshing(w http.ResponseWriter, r *http.Request, ref *poolRef, p *pool) (*injector, *http.Request) {
	i := &injector{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, method: r.Method, edition: ref.editionOf(p, nil),
	}
	copied := *r
	copied.Header = r.Header.Clone()
	for _, name := range []string{"Accept-Encoding", "If-None-Match", "If-Modified-Since", "Range", "If-Range"} {
		copied.Header.Del(name)
	}
	return i, &copied
}

// injector adds the script to an HTML page.
type injector struct {
	*caddyhttp.ResponseWriterWrapper
	method  string
	edition string
	began   bool
	nonce   string
	inject  bool // the response is an HTML page
}

// WriteHeader implements http.ResponseWriter.
func (i *injector) WriteHeader(status int) {
	if !i.began && status >= 200 {
		i.began = true
		i.prepare(status)
	}
	i.ResponseWriterWrapper.WriteHeader(status)
}

// prepare looks at the headers of a response and makes room for the script.
func (i *injector) prepare(status int) {
	header := i.Header()
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	bodiless := status == http.StatusNoContent || status == http.StatusNotModified || status == http.StatusPartialContent
	if err != nil || kind != "text/html" || header.Get("Content-Encoding") != "" || bodiless {
		return
	}
	header.Del("Content-Length")
	header.Del("Accept-Ranges")
	header.Del("Etag") // of another body
	header.Del("Last-Modified")
	header.Set("Cache-Control", "no-store") // or a page of an old edition comes back for ever
	if policies := header["Content-Security-Policy"]; len(policies) > 0 {
		i.nonce = rand.Text()
		policies = slices.Clone(policies)
		for n, policy := range policies {
			policies[n] = allowScript(policy, i.nonce)
		}
		header["Content-Security-Policy"] = policies
	}
	i.inject = i.method != http.MethodHead
}

// Write implements io.Writer.
func (i *injector) Write(b []byte) (int, error) {
	if !i.began {
		i.WriteHeader(http.StatusOK)
	}
	return i.ResponseWriterWrapper.Write(b)
}

// ReadFrom implements io.ReaderFrom.
func (i *injector) ReadFrom(r io.Reader) (int64, error) {
	if !i.began {
		i.WriteHeader(http.StatusOK)
	}
	return i.ResponseWriterWrapper.ReadFrom(r)
}

// finish adds the script, now that the page is complete.
func (i *injector) finish() error {
	if !i.inject {
		return nil
	}
	return writeRefreshScript(i.ResponseWriterWrapper, i.nonce, i.edition)
}

// allowScript adds to a Content-Security-Policy that the script may run and connect (CSP Level 3).
func allowScript(policy, nonce string) string {
	var order []string
	directives := map[string][]string{}
	for part := range strings.SplitSeq(policy, ";") {
		fields := strings.Fields(part)
		if len(fields) == 0 {
			continue
		}
		name := strings.ToLower(fields[0])
		if _, known := directives[name]; !known { // only the first one counts
			order = append(order, name)
			directives[name] = fields[1:]
		}
	}
	// allow adds a source to the first of these directives that is there, as the first of them.
	allow := func(source string, enough func([]string) bool, names ...string) {
		for _, name := range names {
			sources, known := directives[name]
			if !known {
				continue
			}
			if enough(sources) {
				return
			}
			sources = slices.DeleteFunc(slices.Clone(sources), func(s string) bool { return strings.EqualFold(s, "'none'") })
			if name == "default-src" { // which stays as it is for others
				name = names[len(names)-2]
				order = append(order, name)
			}
			directives[name] = append(sources, source)
			return
		}
	}
	allow("'nonce-"+nonce+"'", allowsInline, "script-src-elem", "script-src", "default-src")
	allow("'self'", allowsSelf, "connect-src", "default-src")
	var parts []string
	for _, name := range order {
		parts = append(parts, strings.Join(append([]string{name}, directives[name]...), " "))
	}
	return strings.Join(parts, "; ")
}

func allowsSelf(sources []string) bool {
	return slices.Contains(sources, "'self'") || slices.Contains(sources, "*")
}

// allowsInline tells whether every inline script may run. A nonce would forbid those that have none.
func allowsInline(sources []string) bool {
	inline := false
	for _, source := range sources {
		source = strings.ToLower(source)
		if strings.HasPrefix(source, "'nonce-") || strings.HasPrefix(source, "'sha") || source == "'strict-dynamic'" {
			return false
		}
		inline = inline || source == "'unsafe-inline'"
	}
	return inline
}

// Interface guards.
var (
	_ http.ResponseWriter = (*injector)(nil)
	_ io.ReaderFrom       = (*injector)(nil)
)
