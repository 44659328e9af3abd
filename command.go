package caddysnake

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "python-server",
		Usage: "--server-type wsgi|asgi|esgi --app <module:variable>",
		Short: "Serves a Python app",
		Long: `Serves a WSGI, ASGI or ESGI app, and its static files, without a Caddyfile.

The app is "module:variable", where module is imported from --working-dir. The
variable may also be an attribute, "module:object.app", or a function that makes
the app, "module:make_app()".

With --domain, the app is served over HTTPS, on port 443 if --listen is not
given, and Caddy gets the certificate by itself: the domain must point to this
machine. Without it, the app is served over plain HTTP.

Static files are compressed as they are sent. What the app sends is not changed.

Caddy's admin API is off unless --admin gives it an address: whoever reaches it,
the app included, controls the server.`,
		CobraFunc: func(cmd *cobra.Command) {
			var s server
			s.addFlags(cmd)
			cmd.Example = `  caddy python-server --server-type wsgi --app main:app
  caddy python-server --server-type asgi --app main:app --lifespan on --workers 4
  caddy python-server --server-type wsgi --app mysite.wsgi:application \
      --working-dir /srv/mysite --venv /srv/mysite/.venv \
      --static-path /srv/mysite/static --domain example.com`
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return unexpected(args[0], cmd.Flags().Changed("autoreload"))
				}
				return s.run(cmd)
			}
		},
	})
}

// server is the command line of `caddy python-server`.
type server struct {
	python       Config
	serverType   string // "wsgi", "asgi" or "esgi"
	app          string
	startTimeout string
	drainTimeout string
	maxMemory    string // "" for no limit
	maxAge       string // likewise
	timeout      string // of a request; "" for none
	idleTimeout  string // "" for the default
	domain       string
	listen       string
	staticPath   string // "" for no static files
	staticRoute  string
	admin        string // the admin API's address; "" or adminOff for none
	debug        bool
	accessLogs   bool
}

const (
	defaultListen = ":9080"
	adminOff      = "off" // the address of an admin API that there is not
)

func (s *server) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&s.serverType, "server-type", "t", "", "kind of app, `wsgi|asgi|esgi` (required)")
	flags.StringVarP(&s.app, "app", "a", "", "app as `module:variable` (required)")
	flags.StringVarP(&s.domain, "domain", "d", "", "`domain` to serve over HTTPS")
	flags.StringVarP(&s.listen, "listen", "l", defaultListen, "`address` to listen on; with --domain the default is :443")
	flags.IntVarP(&s.python.Workers, "workers", "w", 0, "`number` of workers (default one per CPU)")
	flags.IntVar(&s.python.MaxWorkers, "max-workers", 0, "most `number` of workers; --workers is then the least, by default 0")
	flags.StringVar(&s.idleTimeout, "idle-timeout", "", "`duration` that a worker beyond the least goes on while it is not needed (default 5m)")
	flags.StringVar(&s.python.WorkersRuntime, "workers-runtime", "", "`where` workers run: process, or thread inside Caddy (default "+defaultWorkersRuntime+")")
	flags.IntVar(&s.python.Threads, "threads", 0, fmt.Sprintf("`number` of threads in each worker, WSGI only (default %d)", defaultThreads))
	flags.StringVar(&s.python.WorkingDir, "working-dir", "", "`folder` that the app is in (default the current one)")
	flags.StringVar(&s.python.VenvPath, "venv", "", "`folder` of the virtual environment whose interpreter runs the app")
	flags.StringVar(&s.python.PythonPath, "python-path", "", "`interpreter` that runs the app, wins over --venv (default python3 on PATH)")
	flags.StringVar(&s.python.Runtime, "runtime", "", "`runtime` of a worker; WSGI: sync or gevent (default sync); ASGI: native or uvloop (default uvloop if it is installed); ESGI: gevent")
	flags.StringVar(&s.python.Lifespan, "lifespan", "", "ASGI lifespan protocol `on|off|auto` (default off)")
	flags.StringVar(&s.startTimeout, "start-timeout", "120s", "`duration` that the start may take; forever or -1 for no limit")
	flags.StringVar(&s.drainTimeout, "drain-timeout", "30s", "`duration` that requests may go on at the end; forever or -1 for no limit")
	flags.IntVar(&s.python.MaxRequests, "max-requests", 0, "`number` of requests after which a worker is replaced (default no limit)")
	flags.IntVar(&s.python.MaxRequestsJitter, "max-requests-jitter", 0, "`number` of further requests, at most, chosen at random for each worker")
	flags.StringVar(&s.maxMemory, "max-memory", "", "`size` of a worker's memory above which it is replaced, such as 512MiB (default no limit)")
	flags.StringVar(&s.maxAge, "max-age", "", "`duration` after which a worker is replaced, such as 12h (default no limit)")
	flags.StringVar(&s.python.Autoreload, "autoreload", "", "start the app anew when a Python file of it changes, for development; =`browser` reloads open pages too")
	flags.Lookup("autoreload").NoOptDefVal = autoreloadOn
	flags.StringVar(&s.timeout, "request-timeout", "", "`duration` that the app may take to begin a response (default no limit)")
	flags.StringVar(&s.staticPath, "static-path", "", "`folder` of static files to serve")
	flags.StringVar(&s.staticRoute, "static-route", "/static", "`path` in URLs of the static files")
	flags.BoolVar(&s.debug, "debug", false, "log at debug level")
	flags.BoolVar(&s.accessLogs, "access-logs", false, "log every request")
	flags.StringVar(&s.admin, "admin", adminOff, "`address` of Caddy's admin API, such as localhost:2019")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok && invalid.GetFlag().Value.Type() == "int" {
			return fmt.Errorf("--%s: %q is not possible; give a whole number of 1 or more", invalid.GetFlag().Name, invalid.GetValue())
		}
		return err
	})
}

// run serves until a signal ends the process. It returns only if the start failed.
func (s *server) run(cmd *cobra.Command) error {
	caddy.TrapSignals()
	config, err := s.config(cmd.Flags().Changed)
	if err != nil {
		return err
	}
	if err := caddy.Run(config); err != nil {
		if caddy.Exiting() {
			select {} // the start was interrupted: Caddy is cleaning up and exits by itself
		}
		return startReason(err)
	}
	caddy.Log().Info("serving python app", zap.String("app", s.app), zap.String("listen", s.listen))
	select {}
}

// startReason strips from err how Caddy came to it, because the command line has no modules, and names flags where the
// app's worker names settings.
func startReason(err error) error {
	reason := err.Error()
	for _, prefix := range []string{"loading new config: ", "python app module: start: ", "http app module: start: "} {
		reason = strings.TrimPrefix(reason, prefix)
	}
	if setting, rest, found := strings.Cut(reason, " "); found && strings.HasPrefix(setting, "module_") {
		reason = flagOf(setting) + " " + rest
	}
	return errors.New(flagAdvice.Replace(reason))
}

// flagAdvice turns what an error advises for a Caddyfile into flags.
var flagAdvice = strings.NewReplacer(
	"(change module_wsgi or working_dir)", "(change --app or --working-dir)",
	"(change module_asgi or working_dir)", "(change --app or --working-dir)",
	"(change module_esgi or working_dir)", "(change --app or --working-dir)",
	" app: use module_wsgi", " app: use --server-type wsgi",
	" app: use module_asgi", " app: use --server-type asgi",
	" app: use module_esgi", " app: use --server-type esgi",
	"say `lifespan auto` or `off`", "say --lifespan auto or off",
	"; raise start_timeout", "; raise --start-timeout",
	"give the smaller number first", "give --max-workers the larger number",
	"give one number", "leave --max-workers out",
	"give it as workers MIN MAX, or remove this", "give --max-workers too, or leave this out",
	"use workers_runtime process", "use --workers-runtime process",
	"(max_requests_jitter) but no max_requests", "(--max-requests-jitter) but no --max-requests",
	"give python_path", "give --python-path",
	"use runtime sync", "use --runtime sync",
)

// unexpected says what is wrong with an argument that no flag takes.
func unexpected(argument string, autoreload bool) error {
	c := Config{Autoreload: argument}
	if argument != "" && autoreload && c.validateAutoreload() == nil {
		return fmt.Errorf("unexpected argument %q; write --autoreload=%s", argument, argument)
	}
	return fmt.Errorf("unexpected argument %q; give the app as --app module:variable", argument)
}

// config checks the flags and makes the configuration that they stand for.
func (s *server) config(given func(flag string) bool) (*caddy.Config, error) {
	// In a configuration, 0 is what has not been set.
	switch {
	case given("workers") && s.python.Workers == 0 && s.python.MaxWorkers == 0:
		return nil, errors.New("--workers: 0 is not possible; give 1 or more, or --max-workers too")
	case given("threads") && s.python.Threads == 0:
		return nil, fmt.Errorf("--threads: 0 is not possible; give 1 or more, or leave it out for %d", defaultThreads)
	case given("max-workers") && s.python.MaxWorkers <= 0:
		return nil, fmt.Errorf("--max-workers: %d is not possible; give 1 or more, or leave it out", s.python.MaxWorkers)
	case given("domain") && s.domain == "":
		return nil, errors.New("--domain: it is empty; write for example example.com")
	}
	if err := s.check(); err != nil {
		if wrong, ok := errors.AsType[*settingError](err); ok {
			return nil, errors.New(flagOf(wrong.setting) + ": " + flagAdvice.Replace(wrong.err.Error()))
		}
		return nil, err
	}
	if s.domain != "" && !given("listen") {
		s.listen = ":" + strconv.Itoa(caddyhttp.DefaultHTTPSPort)
	}
	httpServer := &caddyhttp.Server{Listen: []string{s.listen}, Routes: s.routes()}
	if s.accessLogs {
		httpServer.Logs = new(caddyhttp.ServerLogConfig)
	}
	httpApp := caddyhttp.App{Servers: map[string]*caddyhttp.Server{"python": httpServer}}

	admin := s.admin
	if admin == adminOff {
		admin = ""
	}
	persist := false
	config := &caddy.Config{
		Admin: &caddy.AdminConfig{
			Disabled: admin == "",
			Listen:   admin,
			Config:   &caddy.ConfigSettings{Persist: &persist},
		},
		AppsRaw: caddy.ModuleMap{"http": caddyconfig.JSON(httpApp, nil)},
	}
	if s.debug {
		config.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{
			caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{Level: zap.DebugLevel.CapitalString()}},
		}}
	}
	return config, nil
}

// check finds what is wrong before Caddy does, so that the message is about a flag.
func (s *server) check() (err error) {
	if s.serverType == "" || s.app == "" {
		return errors.New("--server-type and --app are required, as in caddy python-server --server-type wsgi --app main:app")
	}
	switch s.serverType {
	case interfaceWSGI:
		s.python.ModuleWSGI = s.app
	case interfaceASGI:
		s.python.ModuleASGI = s.app
	case interfaceESGI:
		s.python.ModuleESGI = s.app
	default:
		return wrong("server_type", "%q is unknown; use wsgi, asgi or esgi", s.serverType)
	}
	if s.python.StartTimeout, err = parseTimeout("start_timeout", s.startTimeout); err != nil {
		return err
	}
	if s.python.DrainTimeout, err = parseTimeout("drain_timeout", s.drainTimeout); err != nil {
		return err
	}
	if s.maxMemory != "" {
		if s.python.MaxMemory, err = parseMemory(s.maxMemory); err != nil {
			return err
		}
	}
	if s.maxAge != "" {
		if s.python.MaxAge, err = parseAge(s.maxAge); err != nil {
			return err
		}
	}
	if s.idleTimeout != "" {
		if s.python.IdleTimeout, err = parseIdleTimeout(s.idleTimeout); err != nil {
			return err
		}
	}
	if s.timeout != "" {
		if s.python.RequestTimeout, err = parseTimeout("request_timeout", s.timeout); err != nil {
			return err
		}
	}
	if err := checkListen(s.listen); err != nil {
		return err
	}
	if err := checkDomain(s.domain); err != nil {
		return err
	}
	if s.staticPath != "" {
		if info, err := os.Stat(s.staticPath); err != nil {
			return wrong("static_path", "%q: %w; give a folder", s.staticPath, withoutPath(err))
		} else if !info.IsDir() {
			return wrong("static_path", "%q is a file; give a folder", s.staticPath)
		}
	}
	if !strings.HasPrefix(s.staticRoute, "/") || strings.Trim(s.staticRoute, "/") == "" {
		return wrong("static_route", "%q is not a path below /; write for example /static", s.staticRoute)
	}
	python := s.python // this replaces placeholders; the configuration keeps them
	if err := python.prepare(); err != nil {
		return err
	}
	if python.isDynamic() {
		_, err = newTemplate(python)
	} else {
		_, err = python.settings()
	}
	return err
}

// checkListen refuses what is no address of Caddy's, and one without a port, for which it would choose one.
func checkListen(address string) error {
	replaced, err := caddy.NewReplacer().ReplaceOrErr(address, true, true)
	if err != nil {
		return wrong("listen", "%q: %w; write for example %s", address, err, defaultListen)
	}
	network, _, port, err := caddy.SplitNetworkAddress(replaced)
	if err == nil && port == "" && !caddy.IsUnixNetwork(network) && !caddy.IsFdNetwork(network) {
		return wrong("listen", "%q has no port; write for example %s", address, defaultListen)
	}
	if _, err := caddy.ParseNetworkAddress(replaced); err != nil {
		return wrong("listen", "%q is not an address; write for example %s", address, defaultListen)
	}
	return nil
}

// checkDomain refuses what no request's host can be, "" excepted, which is no domain. There may be a wildcard for a label.
func checkDomain(domain string) error {
	replaced, err := caddy.NewReplacer().ReplaceOrErr(domain, true, true)
	if err != nil {
		return wrong("domain", "%q: %w; write for example example.com", domain, err)
	}
	if domain == "" || net.ParseIP(replaced) != nil {
		return nil
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(replaced, "*."), ".") {
		if !domainLabel.MatchString(label) {
			return wrong("domain", "%q is not a host name; write for example example.com, without https://, port or path", domain)
		}
	}
	return nil
}

// domainLabel is a label of a host name, in any script.
var domainLabel = regexp.MustCompile(`^[\p{L}\p{N}_]([\p{L}\p{M}\p{N}_-]*[\p{L}\p{M}\p{N}_])?$`)

// flagOf names the flag that fills a setting.
func flagOf(setting string) string {
	if strings.HasPrefix(setting, "module_") {
		return "--app"
	}
	return "--" + strings.ReplaceAll(setting, "_", "-")
}

func (s *server) routes() caddyhttp.RouteList {
	var routes caddyhttp.RouteList
	if s.staticPath != "" {
		routes = append(routes, s.staticFiles())
	}
	routes = append(routes, caddyhttp.Route{HandlersRaw: []json.RawMessage{
		caddyconfig.JSONModuleObject(Handler{Config: s.python}, "handler", "python", nil),
	}})
	if s.domain == "" {
		return routes
	}
	subroute := caddyhttp.Subroute{Routes: routes}
	return caddyhttp.RouteList{{
		MatcherSetsRaw: []caddy.ModuleMap{{"host": caddyconfig.JSON(caddyhttp.MatchHost{s.domain}, nil)}},
		HandlersRaw:    []json.RawMessage{caddyconfig.JSONModuleObject(subroute, "handler", "subroute", nil)},
	}}
}

// staticFiles is the route that answers below staticRoute, so that the app never sees those requests.
func (s *server) staticFiles() caddyhttp.Route {
	prefix := strings.TrimRight(s.staticRoute, "/")
	compress := encode.Encode{
		EncodingsRaw: caddy.ModuleMap{"zstd": json.RawMessage("{}"), "gzip": json.RawMessage("{}")},
		Prefer:       []string{"zstd", "gzip"},
	}
	return caddyhttp.Route{
		MatcherSetsRaw: []caddy.ModuleMap{{"path": caddyconfig.JSON(caddyhttp.MatchPath{prefix + "/*"}, nil)}},
		HandlersRaw: []json.RawMessage{
			caddyconfig.JSONModuleObject(compress, "handler", "encode", nil),
			caddyconfig.JSONModuleObject(rewrite.Rewrite{StripPathPrefix: prefix}, "handler", "rewrite", nil),
			caddyconfig.JSONModuleObject(fileserver.FileServer{Root: s.staticPath}, "handler", "file_server", nil),
		},
	}
}
