package caddysnake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

func init() {
	caddy.RegisterModule(new(DirPermission))
}

// DirPermission allows on-demand certificates for the hosts of dynamic apps: names that are exactly one label before
// DomainSuffix, where Root has a folder of that label. Both may hold global placeholders.
type DirPermission struct {
	// The folder in which each tenant has a folder. Required.
	Root string `json:"root,omitempty"`

	// The domain below which each tenant has a name, such as "apps.example.com". Required.
	DomainSuffix string `json:"domain_suffix,omitempty"`

	root   string // real path
	suffix string // in lower case, with a dot before it
}

// CaddyModule implements caddy.Module.
func (*DirPermission) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.permission.python_dir",
		New: func() caddy.Module { return new(DirPermission) },
	}
}

// Provision implements caddy.Provisioner.
func (p *DirPermission) Provision(caddy.Context) error {
	replacer := caddy.NewReplacer()
	for _, field := range []struct {
		setting string
		value   *string
	}{{"root", &p.Root}, {"domain_suffix", &p.DomainSuffix}} {
		replaced, err := replacer.ReplaceOrErr(*field.value, true, true)
		if err != nil {
			return wrong("permission python_dir "+field.setting, "%q: %w; only global placeholders, such as {env.NAME}, that are not empty are allowed here",
				*field.value, err)
		}
		*field.value = replaced
	}
	if err := p.validate(); err != nil {
		return err
	}
	p.suffix = "." + strings.ToLower(strings.TrimPrefix(p.DomainSuffix, "."))
	root, err := filepath.Abs(p.Root)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(root); err == nil && !info.IsDir() {
			err = errors.New("it is not a folder")
		}
	}
	if err != nil {
		return wrong("permission python_dir root", "%q: %w; give the folder in which each tenant has a folder", p.Root, withoutPath(err))
	}
	p.root = root
	return nil
}

// validate makes the checks that need no file, whether placeholders have been replaced or not.
func (p *DirPermission) validate() error {
	switch {
	case p.Root == "":
		return wrong("permission python_dir", "root is missing; give the folder in which each tenant has a folder")
	case p.DomainSuffix == "":
		return wrong("permission python_dir", "domain_suffix is missing; give the domain of the tenants, such as apps.example.com")
	case !hasPlaceholder(p.DomainSuffix) && !isHostName(strings.TrimPrefix(p.DomainSuffix, ".")):
		return wrong("permission python_dir domain_suffix", "%q is not a domain; write for example apps.example.com", p.DomainSuffix)
	}
	return nil
}

// CertificateAllowed implements caddytls.OnDemandPermission. For a name that cannot be a tenant's it touches no file.
func (p *DirPermission) CertificateAllowed(_ context.Context, name string) error {
	label, ok := strings.CutSuffix(strings.ToLower(name), p.suffix)
	if !ok || !isLabel(label) {
		return fmt.Errorf("%w: %.300q is not one label before %s", caddytls.ErrPermissionDenied, name, p.suffix)
	}
	if _, err := below(p.root, filepath.Join(p.root, label)); err != nil {
		return fmt.Errorf("%w: %q: %w", caddytls.ErrPermissionDenied, name, err)
	}
	return nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler. Syntax, in the global options:
//
//	on_demand_tls {
//	    permission python_dir {
//	        root          <path>
//	        domain_suffix <domain>
//	    }
//	}
//
// Both are required.
func (p *DirPermission) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	module := d.Token()
	if d.NextArg() {
		return d.Errf("%q: permission python_dir has no arguments; write a block with root and domain_suffix", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		field := map[string]*string{"root": &p.Root, "domain_suffix": &p.DomainSuffix}[name]
		args := d.RemainingArgs()
		switch {
		case field == nil:
			return d.Errf("%q is not a setting of permission python_dir; known are domain_suffix, root", name)
		case *field != "":
			return d.Errf("%s is given twice; keep one", name)
		case len(args) != 1 || args[0] == "":
			return d.Errf("%s has %d arguments; write %[1]s and one value", name, len(args))
		}
		*field = args[0]
	}
	if err := p.validate(); err != nil {
		return errorAt(module, err)
	}
	return nil
}

// Interface guards.
var (
	_ caddytls.OnDemandPermission = (*DirPermission)(nil)
	_ caddy.Provisioner           = (*DirPermission)(nil)
	_ caddyfile.Unmarshaler       = (*DirPermission)(nil)
)
