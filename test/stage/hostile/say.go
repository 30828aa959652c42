//go:build linux

package main

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// patience ends what would otherwise hang.
const patience = 20 * time.Second

// say sends texts as they are, some at a time. One that is slow goes a byte at a time, each in a packet of its own.
func say([]string) error {
	var all []struct {
		To   string
		Text []byte
		Slow bool
	}
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		return err
	}
	answers := make([][]byte, len(all))
	var running sync.WaitGroup
	free := make(chan struct{}, 16)
	for i, one := range all {
		running.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			conn, err := net.DialTimeout("tcp", one.To, patience)
			if err != nil {
				answers[i] = []byte(err.Error())
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			go func() {
				text := one.Text
				for ; one.Slow && len(text) > 1; text = text[1:] {
					if _, err := conn.Write(text[:1]); err != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
				_, _ = conn.Write(text)
			}()
			answer, err := io.ReadAll(conn)
			if err != nil {
				answer = append(answer, "\n"+err.Error()...)
			}
			answers[i] = answer
		})
	}
	running.Wait()
	return json.NewEncoder(os.Stdout).Encode(answers)
}
