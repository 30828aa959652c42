package accesslog

// What stands for a number that names a person or their money.
const (
	aPhone    = "[phone]"
	aCard     = "[card]"
	anID      = "[id]"
	maxDigits = 19 // the longest of them, a card's
)

// figures is a row of digits that at most two signs part here and there.
type figures struct {
	text []byte
	plus bool // before the first
}

// redactNumbers replaces the numbers of cards, phones and citizens from a place on.
func redactNumbers(text []byte, from int, end ending) []byte {
	kept := from
	for i := from; i < len(text); {
		if !isDigit(text[i]) {
			text[kept] = text[i]
			kept, i = kept+1, i+1
			continue
		}
		if end == cut && rowEnd(text, i) == len(text) {
			return trimPlus(text[:kept]) // of which the rest may be missing
		}
		length, by := recognise(figures{text[i:], i > from && text[i-1] == '+'})
		if length == 0 {
			length = group(text[i:])
			kept += copy(text[kept:], text[i:i+length])
		} else { // what stands for it is shorter
			kept += copy(text[kept:], by)
		}
		i += length
	}
	return text[:kept]
}

func trimPlus(text []byte) []byte {
	if n := len(text); n > 0 && text[n-1] == '+' {
		return text[:n-1]
	}
	return text
}

// rowEnd gives where the row ends that begins at i, but looks no further than a number may be long.
func rowEnd(text []byte, i int) int {
	for seen := 0; seen <= maxDigits; {
		n := group(text[i:])
		i, seen = i+n, seen+n
		signs := between(text[i:])
		if i+signs == len(text) || signs == 0 || !isDigit(text[i+signs]) {
			return i + signs
		}
		i += signs
	}
	return i
}

// group gives how many digits there are in a row.
func group(text []byte) (n int) {
	for n < len(text) && isDigit(text[n]) {
		n++
	}
	return n
}

// between gives how many signs part two groups of one number.
func between(text []byte) (n int) {
	for n < len(text) && n < 2 && (text[n] == ' ' || text[n] == '-' || text[n] == '.' || text[n] == '(' || text[n] == ')') {
		n++
	}
	return n
}

// recognise gives how long the longest number is that begins here, and what stands for it. It ends where a group does.
func recognise(f figures) (length int, by string) {
	var d [maxDigits]byte
	n, first, second, groups, dots := 0, 0, 0, 0, false
	for i := 0; i < len(f.text); {
		g := group(f.text[i:])
		if g == 0 || n+g > maxDigits {
			break
		}
		n += copy(d[n:], f.text[i:i+g])
		i, groups = i+g, groups+1
		switch groups {
		case 1:
			first = g
		case 2:
			second = g
		}
		next := byte(0)
		if i < len(f.text) {
			next = f.text[i]
		}
		switch {
		case isCitizen(d[:n], next):
			length, by = i, anID
			if n == 17 {
				length++ // the X
			}
		case isCard(d[:n]):
			length, by = i, aCard
		case isPhone(d[:n], f.plus, groups > 1) && !dots && (first != 4 || second != 2):
			length, by = i, aPhone
		}
		signs := between(f.text[i:])
		for _, c := range f.text[i : i+signs] {
			dots = dots || c == '.' && g < 3
		}
		if i += signs; signs == 0 {
			break
		}
	}
	return length, by
}

// isCard tells whether digits are those of a payment card (ISO/IEC 7812): their sum is right, and an issuer begins so.
func isCard(d []byte) bool {
	if len(d) < 13 || d[0] < '2' || d[0] > '6' {
		return false
	}
	sum := 0
	for i := range d {
		v := int(d[len(d)-1-i] - '0')
		if i%2 == 1 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

// isCitizen tells whether digits are the number of a resident of China (GB 11643): a date of birth is in it, and its sum is right. next is
// what follows: the last digit may be an X.
func isCitizen(d []byte, next byte) bool {
	if len(d) == 15 {
		return isDate(d[8:12]) && d[0] >= '1' && d[0] <= '6'
	}
	if len(d) != 18 && (len(d) != 17 || next|0x20 != 'x') || d[6] != '1' && d[6] != '2' || !isDate(d[10:14]) {
		return false
	}
	sum := 0
	weight := 1 // 2 to the power of the place from behind, modulo 11
	for i := 16; i >= 0; i-- {
		weight = weight * 2 % 11
		sum += int(d[i]-'0') * weight
	}
	check := (12 - sum%11) % 11
	if len(d) == 17 {
		return check == 10
	}
	return check == int(d[17]-'0')
}

// isDate tells whether digits are month and day.
func isDate(d []byte) bool {
	month, day := (d[0]-'0')*10+d[1]-'0', (d[2]-'0')*10+d[3]-'0'
	return month >= 1 && month <= 12 && day >= 1 && day <= 31
}

// isPhone tells whether digits are what one dials: with a +, a Chinese mobile phone, or as in North America or with an area code.
func isPhone(d []byte, plus, parted bool) bool {
	n := len(d)
	switch {
	case plus:
		return n >= 8 && n <= 15
	case n == 11 && d[0] == '1':
		return d[1] >= '3' || parted
	case n == 13 && d[0] == '8' && d[1] == '6' && d[2] == '1', n == 15 && string(d[:4]) == "0086":
		return true
	case n == 10:
		return d[0] >= '2' && d[3] >= '2' || d[0] == '0' && parted
	}
	return parted && d[0] == '0' && n >= 9 && n <= 12
}
