package main

import "github.com/spf13/cobra"

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The configuration", Args: cobra.NoArgs, RunE: needsSubcommand}
	cmd.AddCommand(&cobra.Command{
		Use: "print", Short: "Show every setting, its value and where that comes from; secrets are masked", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load()
			if err != nil {
				return err
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	})
	return cmd
}
