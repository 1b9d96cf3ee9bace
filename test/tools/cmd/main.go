// Command cmd builds or finds the tools of package tools and prints the paths
// of their programs, one a line as "name path". With -q it prints only paths,
// for scripts; without names it lists what there is.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/ampbridge/ampbridge/test/tools"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	quiet := flag.Bool("q", false, "print only the paths")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./test/tools/cmd [-q] [NAME...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	err := run(ctx, flag.Args(), *quiet, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string, quiet bool, out, progress io.Writer) error {
	if len(names) == 0 {
		for _, tool := range tools.Tools() {
			if _, err := fmt.Fprintf(out, "%-28s %-8s %s\n", tool.Name, tool.Version, tool.Package); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range names {
		path, err := tools.Find(ctx, name, progress)
		if err != nil {
			return err
		}
		line := path
		if !quiet {
			line = name + " " + path
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}
