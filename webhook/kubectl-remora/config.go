package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	var format string
	pick := selection{app: a}
	c := &cobra.Command{
		Use:   "config (POD | KIND/NAME)",
		Short: "Show the configuration that runs in a pod, and what is wrong with it",
		Long: `Show the configuration that runs in a pod: what its sidecar or gateway has made of all LLMProviders and LLMRoutes that are for it, and what
is wrong with them. Of a Deployment or Service, it is that of one pod. Keys have names here, not values: a pod tells nobody their values.

It takes the rights to get pods and to create pods/portforward; to name a Deployment or Service, to get that and to list pods.`,
		Example: `  kubectl remora config pod/sleep

  # Of any pod of the gateway, for a program
  kubectl remora config -n remora-gateway deploy/remora-gateway -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("name one pod, as pod/NAME, or what has pods, as deploy/NAME")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := oneOf("output", format, "text", "json"); err != nil {
				return err
			}
			query := url.Values{}
			if format == "json" {
				query.Set("format", "json")
			}
			body, of, err := a.admin(c.Context(), &pick, args[0], "/config", query)
			if err != nil {
				return err
			}
			if format == "json" {
				var indented bytes.Buffer
				if err := json.Indent(&indented, body, "", "  "); err != nil {
					return fmt.Errorf("%s: its answer is no JSON: its sidecar is of a version that knows no -o json: make the pod anew", of)
				}
				return a.page.rawJSON(indented.Bytes())
			}
			return a.page.compiled(of, string(body))
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return c
}

// compiled writes a table as the sidecar does, with remarks and faults in colours.
func (p *page) compiled(of podID, text string) error {
	if err := p.line(span{"# " + of.String(), faint}); err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		c := none
		switch {
		case strings.HasPrefix(line, "# invalid"):
			c = red
		case strings.HasPrefix(line, "# unresolved"), strings.HasPrefix(line, "# warning"):
			c = yellow
		case strings.HasPrefix(line, "#"):
			c = faint
		case line != "" && !strings.HasPrefix(line, " "):
			c = bold
		}
		if err := p.line(span{line, c}); err != nil {
			return err
		}
	}
	return nil
}
