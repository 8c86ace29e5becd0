package main

import (
	"github.com/spf13/cobra"

	"aftersend/app"
)

func (c *cli) workerCommand() *cobra.Command {
	return c.roleCommand("worker", "Process callbacks and deliver events", app.Roles{Worker: true})
}
