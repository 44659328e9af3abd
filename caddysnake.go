// Package caddysnake runs Python web apps inside Caddy: a handler turns each request into a WSGI environ, or an ASGI or
// ESGI scope, and gives it to a Python worker.
package caddysnake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func init() {
	caddy.RegisterModule(new(Handler))
	caddy.RegisterModule(new(App))
	// Apps stop in no particular order. At exit the pools go last, when the HTTP servers have finished their requests.
	// Context.OnExit would not do: Provision gets a copy of the context.
	caddy.OnExit(func(context.Context) {
		dynamicStarts.Wait()
		closePools()
		runExitFunctions()
	})
}

// Handler is the HTTP handler that passes requests to one Python app. It holds configuration; the App holds the workers.
type Handler struct {
	Config

	app       *App
	pool      *poolRef
	dynamic   *dynamicRef // in place of pool, when requests choose the app
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
	if err := h.prepare(); err != nil {
		return err
	}
	iface, _ := h.Config.app()
	h.encode = encoders[iface]
	if h.encodeWebSocket = webSocketEncoders[iface]; h.encodeWebSocket != nil {
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
	if h.isDynamic() {
		h.dynamic, err = h.app.registerDynamic(h.Config)
		return err
	}
	s, err := h.settings()
	if err != nil {
		return err
	}
	h.pool, err = h.app.register(&h.Config, s)
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler. It answers every request: the next handler is never called.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if h.dynamic != nil {
		return h.serveDynamic(w, r)
	}
	return h.serve(w, r, h.pool)
}

// serve answers a request by the app that has this place.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, ref *poolRef) error {
	if h.Autoreload == autoreloadBrowser && asksForRefresh(r) {
		return h.serveRefresh(w, r, ref)
	}
	pool, err := ref.await(r.Context())
	if err != nil {
		return h.serveNone(w, r, ref, err)
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
	if h.refreshes(r) {
		injector, r := h.refreshing(w, e.request.Request, ref, pool)
		e.request.Request, e.w = r, injector
		if err := e.run(h.encode); err != nil {
			return err
		}
		return injector.finish()
	}
	return e.run(h.encode)
}

// serveNone answers a request for which there is no pool: its client has gone, or the app does not run.
func (h *Handler) serveNone(w http.ResponseWriter, r *http.Request, ref *poolRef, err error) error {
	if why, ok := errors.AsType[*failure](err); ok {
		return h.serveFailure(w, r, ref, why)
	}
	if errors.Is(err, errPoolClosed) {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	return caddyhttp.Error(statusClientClosed, err)
}

// App is the Caddy app "python". It owns the pools of the Python apps that a config's handlers serve: it starts those that
// are new and lets go of them when the config goes. It has no settings of its own.
type App struct {
	logger  *zap.Logger                      // of all that outlives the config, too
	core    zapcore.Core                     // of the config's logs
	over    <-chan struct{}                  // closed when all apps of the config have been stopped
	servers map[*caddyhttp.Server]*stripping // that have a handler of this app's
	refs    []*poolRef                       // one for each different app; complete when Provision of all handlers is over
	dynamic []*dynamicRef                    // likewise, one for each handler whose requests choose apps

	unsettled atomic.Pointer[generation] // what it has started although Caddy may still go on with another config

	leave   sync.Once
	leaving chan struct{} // closed when a server shuts down, so that pages that wait for a refresh do not keep it waiting
}

// apps are those that have started and have not been stopped: one, and for a moment two while a config is loaded.
var apps struct {
	// changing is held, to write, while a config starts, and if it has workers that are threads until Caddy goes on with
	// it, so that no app is reloaded meanwhile; who reloads holds it to read.
	changing sync.RWMutex
	mu       sync.Mutex // guards live
	live     []*App
}

// CaddyModule implements caddy.Module.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "python",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision implements caddy.Provisioner.
func (a *App) Provision(ctx caddy.Context) error {
	logger := ctx.Logger()
	a.core, a.logger = logger.Core(), followLogs(logger)
	logs.CompareAndSwap(nil, &a.core)
	a.over = ctx.Done()
	a.servers = map[*caddyhttp.Server]*stripping{}
	a.leaving = make(chan struct{})
	return nil
}

// register notes that a handler needs an app with these settings, which are what c leads to. Handlers are provisioned one
// after another. It fails if the app cannot share an interpreter with another one that is to.
func (a *App) register(c *Config, s settings) (*poolRef, error) {
	for _, ref := range a.refs {
		if ref.current().key() == s.key() && ref.config.hasSource(c) {
			return ref, nil
		}
	}
	for _, ref := range a.refs {
		if err := checkSharing(ref.current(), s); err != nil {
			return nil, err
		}
	}
	ref := newPoolRef(a, c, s)
	a.refs = append(a.refs, ref)
	return ref, nil
}

// checkSharing tells whether apps that are renewed together can share an interpreter with each other and with all others.
func (a *App) checkSharing(next []*renewal) error {
	for i, n := range next {
		for _, other := range next[:i] {
			if err := checkSharing(other.settings, n.settings); err != nil {
				return err
			}
		}
		for _, ref := range a.refs {
			if renewalOf(ref, next) != nil {
				continue
			}
			if err := checkSharing(ref.current(), n.settings); err != nil {
				return fmt.Errorf("%w; if both have changed, reload all: caddy python-reload", err)
			}
		}
	}
	return nil
}

// settings are those of all apps, with those of the renewals in place of what they are for.
func (a *App) settings(next []*renewal) []settings {
	var all []settings
	for _, ref := range a.refs {
		if n := renewalOf(ref, next); n != nil {
			all = append(all, n.settings)
		} else {
			all = append(all, ref.current())
		}
	}
	return all
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
	server.RegisterConnContext(withClientConn)
	server.RegisterOnShutdown(func() {
		a.leave.Do(func() { close(a.leaving) })
		if caddy.Exiting() {
			drainAll()
		}
	})
	return s, nil
}

// Start implements caddy.App. It starts the pools that do not run yet, side by side, and returns when all are ready; if
// one cannot start, none is kept and the error says why. Another of Caddy's apps may still fail to start, and then the
// config before goes on: whether it does is known when one of the two is stopped.
func (a *App) Start() error {
	if len(a.refs)+len(a.dynamic) > 0 {
		raiseHeapFloor()
		if err := calmSysmon(); err != nil {
			a.logger.Debug("the runtime's monitor interrupts workers", zap.Error(err))
		}
	}
	apps.changing.Lock()
	logs.Store(&a.core)
	g := newGeneration(a.settings(nil))
	a.unsettled.Store(g)
	results := make(chan error)
	for _, ref := range a.refs {
		go func() { results <- ref.start(g) }()
	}
	var errs []error
	for range a.refs {
		if err := <-results; err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		for _, ref := range a.refs {
			ref.abandon() // its requests, or Caddy would wait for them when it exits
		}
		for _, ref := range a.dynamic {
			ref.abandon()
		}
		a.release()
		apps.mu.Lock()
		restoreLogs()
		apps.mu.Unlock()
		settle(a.unsettled.Swap(nil), false)
		return err
	}
	for _, ref := range a.refs {
		ref.begin()
	}
	for _, ref := range a.dynamic {
		ref.start(a.logger)
	}
	apps.mu.Lock()
	alone := len(apps.live) == 0
	apps.live = append(apps.live, a)
	apps.mu.Unlock()
	if alone || !g.threads {
		settle(a.unsettled.Swap(nil), true)
		return nil
	}
	go func() { // nothing is stopped if Caddy fails later than at its apps
		<-a.over
		settle(a.unsettled.Swap(nil), true)
	}()
	return nil
}

// settle says whether Caddy goes on with the config that has begun this generation; nil: that has been said.
func settle(g *generation, accepted bool) {
	if g != nil {
		g.settle(accepted)
		apps.changing.Unlock()
	}
}

// Stop implements caddy.App. After a reload, the pools that no config uses any more drain in the background; the HTTP
// servers, which may be stopped later, bring requests until then.
func (a *App) Stop() error {
	refused := a.unsettled.Swap(nil)
	apps.mu.Lock()
	apps.live = slices.DeleteFunc(apps.live, func(other *App) bool { return other == a })
	for _, other := range apps.live {
		settle(other.unsettled.Swap(nil), true)
	}
	restoreLogs()
	apps.mu.Unlock()
	for _, ref := range a.refs {
		if ref.autoreload != nil {
			ref.autoreload.stop()
		}
	}
	if caddy.Exiting() {
		settle(refused, false)
		return nil
	}
	go func() {
		<-a.over
		a.release()
		settle(refused, false)
	}()
	return nil
}

// restoreLogs has what runs log to the newest config that has started. apps.mu is held.
func restoreLogs() {
	if newest := len(apps.live) - 1; newest >= 0 {
		logs.Store(&apps.live[newest].core)
	}
}

// release lets go of the pools. Those that no other config holds stop, side by side.
func (a *App) release() {
	var releasing sync.WaitGroup
	for _, ref := range a.refs {
		releasing.Go(ref.release)
	}
	for _, ref := range a.dynamic {
		releasing.Go(func() { ref.release(a.logger) })
	}
	releasing.Wait()
}

// Interface guards.
var (
	_ caddy.Module                = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddy.App                   = (*App)(nil)
	_ caddy.Provisioner           = (*App)(nil)
)
