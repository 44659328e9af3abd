package caddysnake

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// removedPrefix returns what Caddy has stripped from the front of original to leave path, or "" if it did something else.
// It cleans a path before it strips, and what it leaves of the prefix alone is "/".
func removedPrefix(original *url.URL, path string) string {
	cleaned, err := url.PathUnescape(caddyhttp.CleanPath(original.EscapedPath(), true))
	prefix, found := strings.CutSuffix(cleaned, path)
	if path == "/" {
		prefix, found = strings.TrimSuffix(cleaned, "/"), true
	}
	// URLs are made of it: "//host" would lead elsewhere.
	if err != nil || !found || prefix == "" || caddyhttp.CleanPath(prefix, true) != prefix {
		return ""
	}
	return prefix
}

// stripping is what a server's configuration can remove from the front of a path. A rewrite may leave what looks as if a
// prefix had been stripped: `rewrite * /` does, of every path. Only what is stripped is a mount point.
type stripping struct {
	prefixes []string // that some handler strips, in lower case, without a slash at the end
	unknown  bool     // there are prefixes that only a request tells, or other ways to cut a path
}

var (
	// stripSetting is the setting of the rewrite handler that handle_path and `uri strip_prefix` become.
	stripSetting = regexp.MustCompile(`"strip_path_prefix":("(?:[^"\\]|\\.)*")`)
	// cutSetting are those that `uri replace` and `uri path_regexp` become.
	cutSetting = regexp.MustCompile(`"(uri_substring|path_regexp)":\[`)
)

// newStripping looks through the handlers of a server that is being provisioned.
func newStripping(server *caddyhttp.Server) (*stripping, error) {
	config, err := json.Marshal(server)
	if err != nil {
		return nil, fmt.Errorf("reading the server's handlers: %w", err)
	}
	s := new(stripping)
	if err := s.look(config); err != nil {
		return nil, err
	}
	routes := []caddyhttp.RouteList{server.Routes}
	if server.Errors != nil {
		routes = append(routes, server.Errors.Routes)
	}
	for _, route := range server.NamedRoutes {
		routes = append(routes, caddyhttp.RouteList{*route})
	}
	for _, list := range routes {
		if err := s.lookThrough(list); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// lookThrough looks at the handlers of routes that Caddy has loaded already: it has let go of their configuration.
func (s *stripping) lookThrough(routes caddyhttp.RouteList) error {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			if subroute, ok := handler.(*caddyhttp.Subroute); ok {
				if err := s.lookThrough(subroute.Routes); err != nil {
					return err
				}
				continue
			}
			config, err := json.Marshal(handler)
			if err != nil {
				s.unknown = true
				continue
			}
			if err := s.look(config); err != nil {
				return err
			}
		}
	}
	return nil
}

// look looks at what of a configuration there is as JSON.
func (s *stripping) look(config []byte) error {
	s.unknown = s.unknown || cutSetting.Match(config)
	for _, found := range stripSetting.FindAllSubmatch(config, -1) {
		var prefix string
		if err := json.Unmarshal(found[1], &prefix); err != nil {
			return fmt.Errorf("reading strip_path_prefix: %w", err)
		}
		if decoded, err := url.PathUnescape(prefix); err == nil {
			prefix = decoded
		}
		s.unknown = s.unknown || hasPlaceholder(prefix)
		prefix = "/" + strings.Trim(prefix, "/")
		s.prefixes = append(s.prefixes, strings.ToLower(prefix))
	}
	return nil
}

// explains tells whether removed may have been stripped, by one handler or by several.
func (s *stripping) explains(removed string) bool {
	if s.unknown {
		return true
	}
	seen := map[string]bool{}
	for left := []string{strings.ToLower(removed)}; len(left) > 0; {
		last := left[len(left)-1]
		left = left[:len(left)-1]
		for _, prefix := range s.prefixes {
			switch rest, found := strings.CutSuffix(last, prefix); {
			case found && rest == "":
				return true
			case found && !seen[rest]:
				seen[rest] = true
				left = append(left, rest)
			}
		}
	}
	return false
}
