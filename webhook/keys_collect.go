package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
)

// collection is the making of one keys Secret's content. Of a thousand Secrets of which one has changed, only that one is read.
// However much they hold, of which a namespace may have any amount, little more is kept than the keys Secret has room for.
type collection struct {
	k         *keeper
	namespace string
	wanted    *wantedKeys
	from      map[string]string
	last      *keptKeys

	left     map[types.UID]leftOut
	troubles []trouble

	mu     sync.Mutex
	sizes  map[string]int
	values map[string][]byte
	held   int // bytes, of values
}

// collect gives the entries for what is wanted and exists, and those of the installation that are not empty. before is what was made of the sources last; nil where that is not known.
func (c *collection) collect(ctx context.Context, installation map[string]string, before map[string][]byte) (map[string][]byte, error) {
	var changed []string
	for name, keys := range c.wanted.named {
		if c.from[name] == "" {
			continue // there is none
		}
		if c.from[name] != c.last.from[name] {
			changed = append(changed, name)
			continue
		}
		for _, key := range keys {
			entry := v1beta1.KeysSecretEntry(name, key)
			if size, ok := c.last.sizes[entry]; ok {
				c.sizes[entry] = size
			}
			if value, ok := before[entry]; ok {
				c.values[entry] = value
			}
		}
	}
	if err := c.read(ctx, changed); err != nil {
		return nil, err
	}
	room := maxKeys
	for entry, value := range installation {
		if value != "" {
			room -= entrySize(entry, len(value))
		}
	}
	data, withheld := map[string][]byte{}, map[string]int{}
	reserve := min(room, maxKeys/2) // for the hosts of exported providers
	for _, e := range c.wanted.exported {
		entry := v1beta1.ExportedEntry(e.name)
		value, size, err := c.k.exportedEntry(ctx, e, c.from[entry])
		if err != nil {
			return nil, err
		}
		c.sizes[entry], c.values[entry] = size, value
		if reserve -= entrySize(entry, len(e.withheld)); reserve >= 0 {
			withheld[entry], data[entry] = len(e.withheld), e.withheld
		}
	}
	s := divide(c.wanted.claims, c.sizes, withheld, room)
	c.left, c.troubles = s.left, append(c.troubles, s.troubles()...)
	if err := c.readAgain(ctx, s.entries); err != nil {
		return nil, err
	}
	for entry := range s.entries {
		if value := c.values[entry]; value != nil {
			data[entry] = value
		}
	}
	for entry, value := range installation {
		if value != "" {
			data[entry] = []byte(value)
		}
	}
	return data, nil
}

// read reads Secrets of the namespace, and keeps of what is named as much as could be used, and all sizes.
func (c *collection) read(ctx context.Context, secrets []string) error {
	return inParallel(len(secrets), func(i int) error {
		name := secrets[i]
		found, err := liveSecret(ctx, c.k.live, types.NamespacedName{Namespace: c.namespace, Name: name})
		if err != nil || found == nil { // gone meanwhile, and the cache will hear of it
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, key := range c.wanted.named[name] {
			if value, ok := found.Data[key]; ok {
				c.take(name, key, value)
			}
		}
		return nil
	})
}

func (c *collection) take(secret, key string, value []byte) {
	entry := v1beta1.KeysSecretEntry(secret, key)
	if len(entry) > v1beta1.MaxKeysSecretEntry {
		c.troubles = append(c.troubles, trouble{entryTooLong, "Secret", secret, fmt.Sprintf("key %s of Secret %s cannot be given to sidecars: the two names together have %d "+
			"characters, and %d are the most: shorten one", key, secret, len(entry)-1, v1beta1.MaxKeysSecretEntry-1)})
		return
	}
	c.sizes[entry] = len(value)
	if c.held+len(value) <= 2*corev1.MaxSecretSize {
		c.held += len(value)
		c.values[entry] = append([]byte{}, value...) // and not the whole Secret
	}
}

// readAgain reads what has a place and was not kept, which is so only where there is more than room for.
func (c *collection) readAgain(ctx context.Context, entries map[string]bool) error {
	missing := map[string][]string{}
	for name, keys := range c.wanted.named {
		for _, key := range keys {
			if entry := v1beta1.KeysSecretEntry(name, key); entries[entry] && c.values[entry] == nil {
				missing[name] = append(missing[name], key)
			}
		}
	}
	names := slices.Collect(maps.Keys(missing))
	return inParallel(len(names), func(i int) error {
		found, err := liveSecret(ctx, c.k.live, types.NamespacedName{Namespace: c.namespace, Name: names[i]})
		if err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, key := range missing[names[i]] {
			entry := v1beta1.KeysSecretEntry(names[i], key)
			if found != nil && len(found.Data[key]) == c.sizes[entry] {
				c.values[entry] = append([]byte{}, found.Data[key]...)
			} else {
				delete(c.from, names[i]) // it has changed meanwhile: the cache will hear of that, and the next pass takes it
			}
		}
		return nil
	})
}

func sameClaim(a, b claim) bool {
	return a.uid == b.uid && a.exported == b.exported && slices.Equal(a.entries, b.entries)
}
