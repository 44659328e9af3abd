package caddysnake

import "testing"

func TestAllowScript(t *testing.T) {
	for _, test := range []struct{ name, policy, want string }{
		{"nothing is said of scripts", "frame-ancestors 'none'", "frame-ancestors 'none'"},
		{"nothing is allowed", "default-src 'none'", "default-src 'none'; script-src 'nonce-N'; connect-src 'self'"},
		{"the fallback stays as it is", "default-src 'self' https:; img-src *",
			"default-src 'self' https:; img-src *; script-src 'self' https: 'nonce-N'"},
		{"scripts", "script-src 'self'; connect-src https://api.example.com",
			"script-src 'self' 'nonce-N'; connect-src https://api.example.com 'self'"},
		{"script elements", "script-src-elem 'none'; script-src 'self'", "script-src-elem 'nonce-N'; script-src 'self'"},
		{"every inline script may run already", "script-src 'unsafe-inline'; connect-src *", "script-src 'unsafe-inline'; connect-src *"},
		{"those with a nonce may", "script-src 'unsafe-inline' 'nonce-X'", "script-src 'unsafe-inline' 'nonce-X' 'nonce-N'"},
		{"only the first directive of a name counts", "script-src 'none'; SCRIPT-SRC *;;", "script-src 'nonce-N'"},
	} {
		if got := allowScript(test.policy, "N"); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
