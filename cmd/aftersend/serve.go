package main

import (
	"github.com/spf13/cobra"

	"aftersend/app"
)

func (c *cli) serveCommand() *cobra.Command {
	return c.roleCommand("serve", "Take callbacks in and process them: api and worker in one process", app.Roles{API: true, Worker: true})
}

func (c *cli) roleCommand(use, short string, roles app.Roles) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			return app.Run(cmd.Context(), cfg, roles, app.Options{Log: c.logger(cfg)})
		},
	}
}
