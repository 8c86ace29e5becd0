package main

import (
	"fmt"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"aftersend/app"
	"aftersend/id"
	"aftersend/manage"
	"aftersend/store"
)

func (c *cli) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "API tokens", Args: cobra.NoArgs, RunE: needsSubcommand}
	var account string
	var expires time.Duration
	create := &cobra.Command{
		Use: "create NAME", Short: "Make an API token and print it; it is shown only here", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			st, err := app.OpenStore(ctx, cfg)
			if err != nil {
				return err
			}
			defer st.Close()
			m := manage.New(manage.Deps{Store: st, Defaults: cfg.Delivery, Log: c.logger(cfg)})
			owner, err := m.Bootstrap(ctx, false)
			if err != nil {
				return err
			}
			if account != "" {
				if owner, err = id.Account.Parse(account); err != nil {
					return err
				}
			}
			in := manage.TokenInput{Name: args[0]}
			if expires > 0 {
				at := time.Now().Add(expires).UTC()
				in.ExpiresAt = &at
			}
			_, text, err := m.CreateToken(ctx, manage.Scope{Account: owner, By: operator()}, in)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	create.Flags().StringVar(&account, "account", "", "id of the account (default: the first)")
	create.Flags().DurationVar(&expires, "expires", 0, "for how long it is good, as in 720h (default: for ever)")
	cmd.AddCommand(create)
	return cmd
}

// operator is who runs a command on this machine, for the activity log.
func operator() store.Actor {
	by := store.Actor{Kind: "system", Name: "command line"}
	if u, err := user.Current(); err == nil && u.Username != "" {
		by.Name = "command line, " + u.Username
	}
	return by
}
