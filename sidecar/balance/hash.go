package balance

import "math/bits"

// Hash gives the hash of what calls have in common, the same in every process.
func Hash[T ~string | ~[]byte](of T) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(of) {
		h = (h ^ uint64(of[i])) * 1099511628211
	}
	return mix(h)
}

// mix has every bit of a number depend on every other (the end of MurmurHash3).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// chance draws several numbers from one.
type chance uint64

func (c *chance) next() uint64 {
	*c += 0x9e3779b97f4a7c15
	return mix(uint64(*c))
}

// below gives one that is less than n.
func (c *chance) below(n int) int {
	high, _ := bits.Mul64(c.next(), uint64(n))
	return int(high)
}

// share gives one from 0 to less than 1.
func (c *chance) share() float64 { return float64(c.next()>>11) / (1 << 53) }
