package main

import (
	"github.com/spf13/cobra"

	"aftersend/app"
)

func (c *cli) apiCommand() *cobra.Command {
	return c.roleCommand("api", "Take callbacks in and serve the API; workers process them", app.Roles{API: true})
}
