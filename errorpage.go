package caddysnake

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// failurePage shows why the app does not run. html/template escapes what it is given.
var failurePage = template.Must(template.New("failure").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.App}} does not run</title>
<style>
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; color-scheme: light dark }
pre { overflow-x: auto; padding: 1rem; border: 1px solid; border-radius: 4px; font: .875rem/1.5 ui-monospace, monospace }
</style>
<h1>{{.App}} does not run</h1>
<p id="message"><strong>{{.Message}}</strong></p>
{{with .Traceback}}<pre id="traceback">{{.}}</pre>
{{end}}<p>The next change of a Python file starts it again.</p>
</html>
`))

// serveFailure answers a request to an app that does not run: with the reason if the client may know it, else with a bare
// 500.
func (h *Handler) serveFailure(w http.ResponseWriter, r *http.Request, ref *poolRef, f *failure) error {
	if !isLocal(r) && !h.logger.Core().Enabled(zap.DebugLevel) {
		return caddyhttp.Error(http.StatusInternalServerError, f)
	}
	var body bytes.Buffer
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		header.Set("Content-Type", "text/html; charset=utf-8")
		policy, nonce := "default-src 'none'; style-src 'unsafe-inline'", rand.Text()
		page := struct{ App, Message, Traceback string }{f.app, f.message, f.traceback}
		err := failurePage.Execute(&body, page)
		if h.refreshes(r) && err == nil {
			policy = allowScript(policy, nonce)
			err = writeRefreshScript(&body, nonce, ref.editionOf(nil, f))
		}
		if err != nil {
			return caddyhttp.Error(http.StatusInternalServerError, err)
		}
		header.Set("Content-Security-Policy", policy)
	} else {
		fmt.Fprintf(&body, "%s does not run\n\n%s\n\n", f.app, f.message)
		if f.traceback != "" {
			fmt.Fprintf(&body, "%s\n\n", strings.TrimRight(f.traceback, "\n"))
		}
		body.WriteString("The next change of a Python file starts it again.\n")
	}
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = w.Write(body.Bytes()) // the client may have gone
	return nil
}

// isLocal tells whether a request comes from this machine, and does not come from another one through a proxy on this
// machine, whether Caddy was told of that or not.
func isLocal(r *http.Request) bool {
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return err == nil && isLoopback(host) && isLoopback(client)
}

func isLoopback(address string) bool {
	ip := net.ParseIP(address)
	return ip != nil && ip.IsLoopback()
}
