package caddysnake

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterDirective("python", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("python", httpcaddyfile.Before, "reverse_proxy")
}

// parseDirective makes the routes of one python directive: its matcher and its handler.
//
// Caddy's own path matcher takes /api for that path alone. Here it stands for /api and /api/*, an app and all that is in
// it. Each of the two gets a route of its own, because Caddy puts the most specific path first only among routes that match a
// single path. The two handlers have equal settings, so one pool serves both.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the directive's name
	paths := barePath(h.Dispenser)
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, h.WrapErr(err)
	}
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if paths == nil {
		return h.NewRoute(matcher, handler), nil
	}
	var routes []httpcaddyfile.ConfigValue
	for _, path := range paths {
		matcher := caddy.ModuleMap{"path": h.JSON(caddyhttp.MatchPath{path})}
		routes = append(routes, h.NewRoute(matcher, handler)...)
	}
	return routes, nil
}

// barePath returns the paths to match when the next argument is a path without a wildcard, else nil.
func barePath(d *caddyfile.Dispenser) []string {
	if !d.NextArg() {
		return nil
	}
	path := d.Val()
	d.Prev()
	switch {
	case !strings.HasPrefix(path, "/") || strings.Contains(path, "*"):
		return nil
	case strings.HasSuffix(path, "/"):
		return []string{path + "*"}
	default:
		return []string{path, path + "/*"}
	}
}

// subdirective is one setting of the block.
type subdirective struct {
	args       string // as in the documentation, one word for each argument, in brackets if it may be left out
	repeatable bool
	set        func(c *Config, args []string) error
	block      map[string]subdirective // what stands between braces; set is called before
}

var subdirectives = map[string]subdirective{
	"module_wsgi":     text("MODULE:VARIABLE", func(c *Config) *string { return &c.ModuleWSGI }),
	"module_asgi":     text("MODULE:VARIABLE", func(c *Config) *string { return &c.ModuleASGI }),
	"module_esgi":     text("MODULE:VARIABLE", func(c *Config) *string { return &c.ModuleESGI }),
	"workers_runtime": text("process|thread", func(c *Config) *string { return &c.WorkersRuntime }),
	"runtime":         text("sync|gevent|native|uvloop", func(c *Config) *string { return &c.Runtime }),
	"lifespan":        text("on|off|auto", func(c *Config) *string { return &c.Lifespan }),
	"working_dir":     text("PATH", func(c *Config) *string { return &c.WorkingDir }),
	"venv":            text("PATH", func(c *Config) *string { return &c.VenvPath }),
	"python_path":     text("PATH", func(c *Config) *string { return &c.PythonPath }),
	"root_path":       text("PATH|auto", func(c *Config) *string { return &c.RootPath }),
	"workers":         {args: "N [MAX]", set: setWorkers},
	"idle_timeout":    {args: "DURATION", set: setIdleTimeout},
	"threads":         {args: "N", set: setThreads},
	"start_timeout":   timeout("start_timeout", func(c *Config) *caddy.Duration { return &c.StartTimeout }),
	"drain_timeout":   timeout("drain_timeout", func(c *Config) *caddy.Duration { return &c.DrainTimeout }),
	"max_requests":    {args: "N [JITTER]", set: setMaxRequests},
	"max_memory":      {args: "SIZE", set: setMaxMemory},
	"max_age":         {args: "DURATION", set: setMaxAge},
	"autoreload":      {args: "[on|browser|off]", set: setAutoreload},
	"request_timeout": timeout("request_timeout", func(c *Config) *caddy.Duration { return &c.RequestTimeout }),
	"queue":           {set: setQueue, block: queueSubdirectives},
	"env_var":         {args: "NAME VALUE", repeatable: true, set: setEnvVar},
	"env_file":        {args: "PATH", repeatable: true, set: setEnvFile},
	"websocket":       {set: setWebSocket, block: webSocketSubdirectives},

	"max_dynamic_apps":     {args: "N", set: setMaxDynamicApps},
	"dynamic_idle_timeout": timeout("dynamic_idle_timeout", func(c *Config) *caddy.Duration { return &c.DynamicIdleTimeout }),
}

// text is a setting whose argument is taken as it is; validate checks it.
func text(args string, field func(*Config) *string) subdirective {
	return subdirective{args: args, set: func(c *Config, args []string) error {
		*field(c) = args[0]
		return nil
	}}
}

// timeout is a setting whose argument is a duration or for ever.
func timeout(setting string, field func(*Config) *caddy.Duration) subdirective {
	return subdirective{args: "DURATION|-1|forever", set: func(c *Config, args []string) (err error) {
		*field(c), err = parseTimeout(setting, args[0])
		return err
	}}
}

func setThreads(c *Config, args []string) (err error) {
	c.Threads, err = parseCount("threads", args[0])
	return err
}

func parseCount(setting, text string) (int, error) {
	count, err := strconv.Atoi(text)
	if err != nil || count < 1 {
		return 0, wrong(setting, "%q is not possible; give a whole number of 1 or more", text)
	}
	return count, nil
}

func setEnvVar(c *Config, args []string) error {
	name, value := args[0], args[1]
	if _, ok := c.EnvVars[name]; ok {
		return wrong("env_var", "%s is given twice; keep one", name)
	}
	if err := checkEnv(name, value); err != nil {
		return wrong("env_var", "%w", err)
	}
	if c.EnvVars == nil {
		c.EnvVars = make(map[string]string)
	}
	c.EnvVars[name] = value
	return nil
}

func setWebSocket(c *Config, _ []string) error {
	c.WebSocket = new(WebSocketConfig)
	return nil
}

func setEnvFile(c *Config, args []string) error {
	c.EnvFiles = append(c.EnvFiles, args[0])
	return nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler. Syntax:
//
//	python [<matcher>] <module:variable>
//
//	python [<matcher>] {
//	    module_wsgi     <module:variable>
//	    module_asgi     <module:variable>
//	    module_esgi     <module:variable>
//	    workers         <n> [<max>]
//	    idle_timeout    <duration>
//	    workers_runtime process|thread
//	    runtime         sync|gevent|native|uvloop
//	    threads         <n>
//	    lifespan        on|off|auto
//	    working_dir     <path>
//	    venv            <path>
//	    python_path     <path>
//	    env_var         <name> <value>
//	    env_file        <path>
//	    start_timeout   <duration>|-1|forever
//	    drain_timeout   <duration>|-1|forever
//	    max_requests    <n> [<jitter>]
//	    max_memory      <size>
//	    max_age         <duration>
//	    autoreload      [on|browser|off]
//	    request_timeout <duration>|-1|forever
//	    queue {
//	        size    <n>
//	        timeout <duration>|-1|forever
//	    }
//	    root_path       <path>|auto
//	    websocket {
//	        ping_interval <duration>|off
//	        ping_timeout  <duration>|off
//	        max_size      <size>
//	        compression   on|off
//	    }
//	    max_dynamic_apps     <n>
//	    dynamic_idle_timeout <duration>|-1|forever
//	}
//
// The first form runs a WSGI app in one worker. A matcher that is a path without a wildcard, /api, stands for /api and
// /api/*. Exactly one of module_wsgi, module_asgi and module_esgi is required; env_var and env_file may be repeated, the
// others may not. What each setting means, and its default, is in Config.
func (c *Config) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	directive := d.Token()
	given := make(map[string]caddyfile.Token) // the setting's name -> where it stands
	app := d.RemainingArgs()
	if len(app) > 1 {
		return d.Errf("%q are too many arguments; write python module:variable, or a block", app)
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if len(app) == 1 {
			return d.Errf("%q and a block do not go together; write module_wsgi %s in the block", app[0], app[0])
		}
		if err := c.unmarshalSubdirective(d, subdirectives, "", given); err != nil {
			return err
		}
	}
	if len(app) == 1 {
		c.ModuleWSGI, c.Workers = app[0], 1
	}
	if err := c.validate(); err != nil {
		at := directive
		if wrong, ok := errors.AsType[*settingError](err); ok && given[wrong.setting].Line > 0 {
			at = given[wrong.setting]
		}
		return errorAt(at, err)
	}
	return nil
}

// unmarshalSubdirective reads one setting. within is the block that it stands in, with a space behind it.
func (c *Config) unmarshalSubdirective(
	d *caddyfile.Dispenser, among map[string]subdirective, within string, given map[string]caddyfile.Token,
) error {
	token := d.Token()
	name := within + token.Text
	known, ok := among[token.Text]
	if !ok {
		names := strings.Join(slices.Sorted(maps.Keys(among)), ", ")
		return d.Errf("%q is not a setting of python%s; known are %s", token.Text, strings.TrimRight(" "+within, " "), names)
	}
	if first, ok := given[name]; ok && !known.repeatable {
		return d.Errf("%s is given twice, first in line %d; keep one", name, first.Line)
	}
	given[name] = token
	args := d.RemainingArgs()
	if most := strings.Fields(known.args); len(args) > len(most) || len(args) < len(most)-strings.Count(known.args, "[") {
		return d.Errf("%s has %d arguments; write %s", name, len(args), known.usage(name))
	}
	if len(args) > 0 && args[0] == "" {
		return d.Errf("%s is empty; write %s, or remove it", name, known.usage(name))
	}
	if err := known.set(c, args); err != nil {
		return d.WrapErr(err)
	}
	if known.block != nil {
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			if err := c.unmarshalSubdirective(d, known.block, name+" ", given); err != nil {
				return err
			}
		}
	}
	return nil
}

// usage is how to write the setting.
func (s subdirective) usage(name string) string {
	if s.block != nil {
		return name + " { ... }"
	}
	return name + " " + s.args
}

// errorAt adds to err the file and line of token.
func errorAt(token caddyfile.Token, err error) error {
	d := caddyfile.NewDispenser([]caddyfile.Token{token})
	d.Next()
	return d.WrapErr(err)
}

var _ caddyfile.Unmarshaler = (*Handler)(nil)
