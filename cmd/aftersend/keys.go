package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"aftersend/seal"
)

func (c *cli) keysCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Keys of the secrets kept in the database", Args: cobra.NoArgs, RunE: needsSubcommand}
	var keyID uint8
	generate := &cobra.Command{
		Use: "generate", Short: "Make a key for the setting seal.keys", Args: cobra.NoArgs,
		Long: `Makes a key for the setting seal.keys. Without it, secrets in the database
cannot be read: keep it apart from the database's backups. To rotate, put a new
key with another id in front of the old ones, separated by a comma.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), seal.NewKey(keyID))
			return err
		},
	}
	generate.Flags().Uint8Var(&keyID, "id", 1, "number of the key, 0 to 255")
	cmd.AddCommand(generate)
	return cmd
}
