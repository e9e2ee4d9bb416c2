// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// Exit codes beside exitOK, exitError and exitUsage.
const (
	// exitTimeout is what timeout(1) ends with.
	exitTimeout = 124
	// exitInterrupted is what a shell makes of an interrupt.
	exitInterrupted = 130
)

// exitCodes of all commands, in one place.
var exitCodes = []struct {
	code int
	what string
}{
	{exitOK, "it is done; of watch: the rollout is complete"},
	{exitError, "it could not be done; of watch: the rollout is halted, or cannot begin; of resume: others hold it still; of plan and lint: it would be refused; of diff: something differs; of verify: a rule is broken"},
	{exitUsage, "the command was called in a way that makes no sense; of diff: it cannot be told"},
	{exitTimeout, "the time that --timeout gave is over, and the rollout is not complete"},
	{exitInterrupted, "somebody ended it before that: Ctrl-C, or q in watch"},
}

// exitCodesTopic is help without a command.
func exitCodesTopic() *cobra.Command {
	text := "Exit codes of all commands:\n"
	for _, e := range exitCodes {
		const indent = 7
		text += fmt.Sprintf("\n  %s  %s", padLeft(fmt.Sprint(e.code), 3), wrap(e.what, indent, indent))
	}
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes of the commands mean", Long: text}
}

// hide a flag that a command has no use for.
func hide(c *cobra.Command, flag string) {
	if err := c.Flags().MarkHidden(flag); err != nil {
		panic(errors.Join(errors.New("the flag is defined where this is called"), err))
	}
}
