package caddysnake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

func TestPermission(t *testing.T) {
	root := tenants(t, "sites/alice", "sites/x_y", "outside", "sites/apps")
	link(t, "alice", root+"/sites/alias")
	link(t, "../outside", root+"/sites/out")
	link(t, ".", root+"/sites/self")
	writeFile(t, root, "sites/file", "")
	t.Setenv("ROOT", root)
	for _, suffix := range []string{"Apps.example.com", ".apps.EXAMPLE.com"} {
		p := DirPermission{Root: "{env.ROOT}/sites", DomainSuffix: suffix}
		if err := p.Provision(caddy.Context{}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"alice.apps.example.com", "ALICE.apps.example.COM", "x_y.apps.example.com", "alias.apps.example.com"} {
			if err := p.CertificateAllowed(context.Background(), name); err != nil {
				t.Error(err)
			}
		}
		for _, name := range []string{
			"", "alice", "apps.example.com", ".apps.example.com", "alice.example.com", "aliceapps.example.com", "alice.apps.example.com.",
			"a.alice.apps.example.com", "alice.apps.example.com.evil.com", "nobody.apps.example.com", "file.apps.example.com",
			"out.apps.example.com", "self.apps.example.com", "../outside.apps.example.com", "..apps.example.com", "...apps.example.com",
			"alice/.apps.example.com", "alice\x00.apps.example.com", "*.apps.example.com", "-alice.apps.example.com", "127.0.0.1",
			strings.Repeat("a", 64) + ".apps.example.com", strings.Repeat("a.", 10_000) + "apps.example.com",
		} {
			if err := p.CertificateAllowed(context.Background(), name); !errors.Is(err, caddytls.ErrPermissionDenied) {
				t.Errorf("%.50q: %v", name, err)
			}
		}
	}
}

// Names that cannot be a tenant's touch no file: here, none of them would be found.
func TestThreat23AFloodOfNamesGrantsNothing(t *testing.T) {
	root := tenants(t, "sites/alice")
	p := DirPermission{Root: root + "/sites", DomainSuffix: "example.com"}
	if err := p.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		for _, name := range []string{fmt.Sprintf("t%d.example.com", i), fmt.Sprintf("alice.t%d.com", i), fmt.Sprintf("t%d.alice.example.com", i)} {
			if p.CertificateAllowed(context.Background(), name) == nil {
				t.Fatal(name)
			}
		}
	}
	p.root = "/none" // whoever looks there says that it is not there
	err := p.CertificateAllowed(context.Background(), "a.b.example.com")
	if err == nil || !strings.Contains(err.Error(), "is not one label before .example.com") {
		t.Error(err)
	}
}

func TestWrongPermissions(t *testing.T) {
	root := tenants(t, "sites")
	writeFile(t, root, "file", "")
	const folder = "; give the folder in which each tenant has a folder"
	for _, test := range []struct{ root, suffix, want string }{
		{"", "example.com", "permission python_dir: root is missing" + folder},
		{root, "", "permission python_dir: domain_suffix is missing; give the domain of the tenants, such as apps.example.com"},
		{root, "*.example.com", `permission python_dir domain_suffix: "*.example.com" is not a domain; write for example apps.example.com`},
		{root + "/none", "example.com", `permission python_dir root: "` + root + `/none": no such file or directory` + folder},
		{root + "/file", "example.com", `permission python_dir root: "` + root + `/file": it is not a folder` + folder},
		{"{http.request.host}", "example.com", `permission python_dir root: "{http.request.host}": unrecognized placeholder {http.request.host}; ` +
			"only global placeholders, such as {env.NAME}, that are not empty are allowed here"},
	} {
		p := DirPermission{Root: test.root, DomainSuffix: test.suffix}
		if err := p.Provision(caddy.Context{}); err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

func TestPermissionInTheCaddyfile(t *testing.T) {
	for _, test := range []struct{ block, want string }{
		{"{\nroot /srv\ndomain_suffix a.b\n}", ""},
		{"{\nroot {env.ROOT}\ndomain_suffix {env.DOMAIN}\n}", ""},
		{"", "permission python_dir: root is missing; give the folder in which each tenant has a folder, at Caddyfile:3"},
		{"/srv", `"/srv": permission python_dir has no arguments; write a block with root and domain_suffix, at Caddyfile:3`},
		{"{\nroot /srv\n}", "permission python_dir: domain_suffix is missing; give the domain of the tenants, such as apps.example.com, at Caddyfile:3"},
		{"{\nroot /srv\nroot /b\n}", "root is given twice; keep one, at Caddyfile:5"},
		{"{\nroot\n}", "root has 0 arguments; write root and one value, at Caddyfile:4"},
		{"{\nsuffix a\n}", `"suffix" is not a setting of permission python_dir; known are domain_suffix, root, at Caddyfile:4`},
	} {
		_, err := adapt(t, "{\non_demand_tls {\npermission python_dir "+test.block+"\n}\n}\n")
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != "parsing caddyfile tokens for 'on_demand_tls': "+test.want) {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}
