// Package caddysnake runs Python web apps inside Caddy.
package caddysnake
