// Package caddysnake runs Python web apps inside Caddy: a handler turns each request into a WSGI environ, or an ASGI or
// ESGI scope, and gives it to a Python worker.
package caddysnake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(Handler))
	caddy.RegisterModule(new(App))
	// Apps stop in no particular order. At exit the pools go last, when the HTTP servers have finished their requests.
	// Context.OnExit would not do: Provision gets a copy of the context.
	caddy.OnExit(func(context.Context) {
		closePools()
		runExitFunctions()
	})
}

// Handler is the HTTP handler that passes requests to one Python app. It holds configuration; the App holds the workers.
type Handler struct {
	Config

	app       *App
	pool      *poolRef
	encode    encoder
	mount     string     // the root path, or rootPathAuto
	stripping *stripping // for rootPathAuto; nil if the handler is not in a server
	logger    *zap.Logger

	encodeWebSocket encoder            // nil for an interface that has no WebSockets
	webSockets      *webSocketSettings // likewise
}

// CaddyModule implements caddy.Module.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.python",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision implements caddy.Provisioner. It checks the configuration and registers the app; no Python runs before the
// App starts.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	s, err := h.resolve()
	if err != nil {
		return err
	}
	h.encode = encoders[s.Interface]
	if h.encodeWebSocket = webSocketEncoders[s.Interface]; h.encodeWebSocket != nil {
		webSockets := h.Config.webSockets()
		h.webSockets = &webSockets
	}
	h.mount = rootPathAuto
	if path, auto := h.rootPath(); !auto {
		h.mount = path
	}
	module, err := ctx.App("python")
	if err != nil {
		return fmt.Errorf("getting the python app: %w", err)
	}
	h.app = module.(*App)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		if h.stripping, err = h.app.watch(server); err != nil {
			return err
		}
	}
	h.pool, err = h.app.register(s)
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler. It answers every request: the next handler is never called.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	pool, err := h.app.await(r.Context(), h.pool)
	if err != nil {
		return caddyhttp.Error(statusClientClosed, err) // nothing else ends the waiting
	}
	e := exchange{request: newRequest(r, h.mount), w: w, pool: pool, logger: h.logger}
	if h.mount == rootPathAuto && e.request.rootPath != "" && h.stripping != nil && !h.stripping.explains(e.request.rootPath) {
		e.request.rootPath = ""
	}
	if h.webSockets != nil && asksForWebSocket(r) {
		if err := checkHandshake(w, r); err != nil {
			return err
		}
		e.webSockets = h.webSockets
		return e.run(h.encodeWebSocket)
	}
	return e.run(h.encode)
}

// App is the Caddy app "python". It owns the pools of the Python apps that a config's handlers serve: it starts those that
// are new and lets go of them when the config goes. It has no settings of its own.
type App struct {
	logger  *zap.Logger
	over    <-chan struct{}                  // closed when all apps of the config have been stopped
	servers map[*caddyhttp.Server]*stripping // that have a handler of this app's
	refs    []*poolRef                       // one for each different settings; complete when Provision of all handlers is over
	started chan struct{}                    // closed when every pool is ready
}

// poolRef is one app's place in a config: its settings, and its pool once that has started.
type poolRef struct {
	settings settings
	pool     atomic.Pointer[pool] // nil until it has started
	held     bool                 // this config counts among the pool's users; only Start and Stop look at it
}

// pools holds the running pools of all configs, by settings.key. A config that leaves an app as it was takes over its
// running workers.
var pools = caddy.NewUsagePool()

// CaddyModule implements caddy.Module.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "python",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision implements caddy.Provisioner.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.over = ctx.Done()
	a.servers = map[*caddyhttp.Server]*stripping{}
	a.started = make(chan struct{})
	return nil
}

// register notes that a handler needs an app with these settings. Handlers are provisioned one after another. It fails if
// the app cannot share an interpreter with another one that is to.
func (a *App) register(s settings) (*poolRef, error) {
	for _, ref := range a.refs {
		if ref.settings.key() == s.key() {
			return ref, nil
		}
	}
	for _, ref := range a.refs {
		if s.WorkersRuntime == runtimeThread && ref.settings.WorkersRuntime == runtimeThread {
			if err := checkSharing(ref.settings, s); err != nil {
				return nil, err
			}
		}
	}
	ref := &poolRef{settings: s}
	a.refs = append(a.refs, ref)
	return ref, nil
}

// watch notes that a server passes requests to the app, and returns what the server strips from paths. Handlers are
// provisioned one after another; the first one still finds all that are to come in the server's configuration.
func (a *App) watch(server *caddyhttp.Server) (*stripping, error) {
	if known := a.servers[server]; known != nil {
		return known, nil
	}
	s, err := newStripping(server)
	if err != nil {
		return nil, err
	}
	a.servers[server] = s
	server.RegisterOnShutdown(func() {
		if caddy.Exiting() {
			drainAll()
		}
	})
	return s, nil
}

// Start implements caddy.App. It starts the pools that do not run yet, side by side, and returns when all are ready; if
// one cannot start, none is kept and the error says why.
func (a *App) Start() error {
	if len(a.refs) > 0 {
		raiseHeapFloor()
	}
	var apps []settings
	for _, ref := range a.refs {
		apps = append(apps, ref.settings)
	}
	g := newGeneration(apps)
	results := make(chan error)
	for _, ref := range a.refs {
		go func() { results <- ref.acquire(g, a.logger) }()
	}
	var errs []error
	for range a.refs {
		if err := <-results; err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		a.release()
		g.settle(false)
		return err
	}
	g.settle(true)
	for _, ref := range a.refs {
		ref.pool.Load().inUse.Store(true)
	}
	close(a.started)
	return nil
}

// Stop implements caddy.App. After a reload, the pools that no config uses any more drain in the background; the HTTP
// servers, which may be stopped later, bring requests until then.
func (a *App) Stop() error {
	if !caddy.Exiting() {
		go func() {
			<-a.over
			a.release()
		}()
	}
	return nil
}

// await returns the pool of ref, waiting for the start if that is not over: Caddy's HTTP app may start first.
func (a *App) await(ctx context.Context, ref *poolRef) (*pool, error) {
	if p := ref.pool.Load(); p != nil {
		return p, nil
	}
	select {
	case <-a.started:
		return ref.pool.Load(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// release lets go of the pools. Those that no other config holds stop, side by side.
func (a *App) release() {
	done := make(chan struct{})
	for _, ref := range a.refs {
		go func() {
			ref.release(a.logger)
			done <- struct{}{}
		}()
	}
	for range a.refs {
		<-done
	}
}

// acquire takes the running pool with these settings, or starts one.
func (ref *poolRef) acquire(g *generation, logger *zap.Logger) error {
	key := ref.settings.key()
	value, _, err := pools.LoadOrNew(key, func() (caddy.Destructor, error) {
		return g.newPool(ref.settings, logger.With(zap.String("app", ref.settings.App)))
	})
	if err != nil {
		return err
	}
	ref.pool.Store(value.(*pool))
	ref.held = true
	return nil
}

func (ref *poolRef) release(logger *zap.Logger) {
	if !ref.held {
		return
	}
	ref.held = false
	if _, err := pools.Delete(ref.settings.key()); err != nil {
		logger.Error("stopping a python app", zap.String("app", ref.settings.App), zap.Error(err))
	}
}

// Interface guards.
var (
	_ caddy.Module                = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddy.App                   = (*App)(nil)
	_ caddy.Provisioner           = (*App)(nil)
)
