package usage

// MaxModel is how much of a model's name is kept.
const MaxModel = 128

// model is the name of the model that an answer says that it is of. The first one counts: it is the same in all events of a stream.
type model struct {
	text   [MaxModel]byte
	length uint8
	known  bool
}

// piece takes what is here of the name. Some providers have events in front that name none.
func (m *model) piece(b []byte, ended bool) {
	m.length += uint8(copy(m.text[m.length:], b))
	m.known = ended && m.length > 0
}
