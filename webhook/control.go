package main

import (
	"context"
	"errors"
	"io"
)

// control runs the controller until ctx ends.
func control(context.Context, []string, io.Writer) error { return errors.New("not written yet") }
