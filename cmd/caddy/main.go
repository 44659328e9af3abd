// Command caddy is Caddy with its standard modules and the Python plugin.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mliezun/caddy-snake"
)

func main() {
	caddycmd.Main()
}
