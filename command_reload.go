package caddysnake

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "python-reload",
		Usage: "[<module:variable>] [--config <path>] [--adapter <name>] [--address <interface>]",
		Short: "Replaces the workers of Python apps in the running Caddy",
		Long: `Starts new workers for all Python apps of the running Caddy, or for those that are
called "module:variable", and has them take over from the old ones, which finish
the requests that they have. No request notices, and nothing else is reloaded.

Folders, virtual environments and env files are looked up anew: a working_dir
that is a symbolic link is followed to where it points now.

If the new workers of an app do not start, its old ones go on, and the command says
why, and what it has reloaded, and exits with status 1.

The address of Caddy's admin API is that of --address, or else the one in the
configuration that --config names, or else the default.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Flags().StringP("config", "c", "", "Configuration file to use to parse the admin address, if --address is not used")
			cmd.Flags().StringP("adapter", "a", "", "Name of config adapter to apply (when --config is used)")
			cmd.Flags().StringP("address", "", "", "The address to use to reach the admin API endpoint, if not the default")
			cmd.Example = `  caddy python-reload
  caddy python-reload mysite.wsgi:application --config /etc/caddy/Caddyfile`
			cmd.Args = cobra.MaximumNArgs(1)
			cmd.RunE = runReload
		},
	})
}

func runReload(cmd *cobra.Command, args []string) error {
	config, _ := cmd.Flags().GetString("config")
	adapter, _ := cmd.Flags().GetString("adapter")
	address, _ := cmd.Flags().GetString("address")
	address, err := caddycmd.DetermineAdminAPIAddress(address, nil, config, adapter)
	if err != nil {
		return fmt.Errorf("finding the address of the admin API: %w", err)
	}
	uri := reloadEndpoint
	if len(args) > 0 {
		uri += "?" + url.Values{"app": args}.Encode()
	}
	response, err := caddycmd.AdminAPIRequest(address, http.MethodPost, uri, nil, nil)
	if err != nil {
		reloaded, reason := readFailure(err)
		printReloaded(reloaded)
		return reason
	}
	defer func() { _ = response.Body.Close() }()
	var apps []appStatus
	if err := json.NewDecoder(response.Body).Decode(&apps); err != nil {
		return fmt.Errorf("reading the answer of the admin API: %w", err)
	}
	printReloaded(apps)
	return nil
}

func printReloaded(apps []appStatus) {
	for _, app := range apps {
		values := ""
		if len(app.Values) > 0 {
			values = " for " + strings.Join(app.Values, " ")
		}
		fmt.Printf("%s reloaded from %s%s\n", app.App, app.WorkingDir, values)
	}
}

// readFailure is what Caddy says is wrong, without how it has come here, and what was reloaded all the same: caddycmd has that
// in one text, with the body of the response, {"error": "..."}, at its end.
func readFailure(err error) ([]appStatus, error) {
	_, body, found := strings.Cut(err.Error(), "{")
	var answer reloadFailure
	if !found || json.Unmarshal([]byte("{"+body), &answer) != nil || answer.Error == "" {
		return nil, err
	}
	return answer.Reloaded, errors.New(answer.Error)
}
