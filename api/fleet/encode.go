// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// WireVersion is the version every record, body and heartbeat begins with.
//
//	1  2026-11: records, facts, commands, seals, heartbeats
const WireVersion = 1

// Bounds of what travels, in bytes. Whatever is larger is refused before it is parsed.
const (
	MaxRecord = 8 << 10
	// MaxRegister is the most in the body of a record of KindRegister: everybody in a zone keeps those of everybody,
	// and the longest honest status takes three quarters of it. What travels in another kind has a bound of its own.
	MaxRegister  = 4 << 10
	MaxKey       = 512
	MaxDetail    = 256
	MaxLifts     = 64
	MaxHeartbeat = 256

	signatureSize = 64
	publicKeySize = 32
	// frameSize is what a record takes beside its key and body.
	frameSize = 3 + 32 + publicKeySize + 8 + 8 + 1 + 2 + 2 + signatureSize
)

// ErrMalformed is in every error of a decoder: the bytes are not what this version writes.
var ErrMalformed = errors.New("malformed")

// ErrVersion is in the error of a decoder that met a version it does not know.
var ErrVersion = errors.New("unknown wire version")

func putUint64(b []byte, v uint64) { binary.BigEndian.PutUint64(b, v) }

// Encode gives the canonical bytes: one record has one encoding, and Decode accepts no other.
func (r *Record) Encode() []byte {
	return append(r.signed(), r.Sig...)
}

// Digest names the record, signature included.
func (r *Record) Digest() Digest { return DigestOf("flotilla.dev/record-id", r.Encode()) }

// signed is what the signature covers: everything before it.
func (r *Record) signed() []byte {
	key, err := r.Writer.PublicKey()
	if err != nil {
		key = make([]byte, publicKeySize) // never verifies
	}
	b := make([]byte, 0, frameSize+len(r.Key)+len(r.Body))
	b = append(b, 'F', 'R', WireVersion)
	b = append(b, r.Fleet[:]...)
	b = append(b, key...)
	b = binary.BigEndian.AppendUint64(b, r.Epoch)
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	b = append(b, byte(r.Kind))
	b = appendBytes(b, []byte(r.Key))
	return appendBytes(b, r.Body)
}

// DecodeRecord reads what Encode wrote. It checks form and bounds, not the signature.
func DecodeRecord(b []byte) (Record, error) {
	if len(b) > MaxRecord {
		return Record{}, fmt.Errorf("record of %d bytes: %w: at most %d", len(b), ErrMalformed, MaxRecord)
	}
	d := decoder{rest: b}
	d.header('F', 'R')
	var r Record
	copy(r.Fleet[:], d.take(32))
	if key := d.take(publicKeySize); d.err == nil {
		r.Writer = MemberIDOf(key)
	}
	r.Epoch, r.Seq = d.uint64(), d.uint64()
	r.Kind = Kind(d.uint8())
	r.Key = d.text(MaxKey)
	r.Body = d.bytes(MaxRecord)
	r.Sig = append([]byte(nil), d.take(signatureSize)...)
	if r.Kind == KindRegister && len(r.Body) > MaxRegister {
		d.fail("register too long")
	}
	if err := d.end("record"); err != nil {
		return Record{}, err
	}
	return r, nil
}

// Encode gives the canonical body of a fact. A detail over MaxDetail is cut.
func (f Fact) Encode() []byte {
	b := []byte{WireVersion}
	b = append(b, f.Plan[:]...)
	b = append(b, byte(f.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Time))
	return appendBytes(b, []byte(Cut(f.Detail)))
}

// FactKey is the key under which a member says this milestone of a plan: once. The kind is a number, so
// that a member to whom it is news computes the same key.
func FactKey(plan Digest, kind FactKind) string {
	return plan.String() + "/" + strconv.Itoa(int(kind))
}

// DecodeFact reads the body of a record of KindFact. The key must be the fact's own.
func DecodeFact(r *Record) (Fact, error) {
	d := bodyOf(r, KindFact)
	f := Fact{Member: r.Writer}
	copy(f.Plan[:], d.take(32))
	f.Kind = FactKind(d.uint8())
	f.Time = int64(d.uint64())
	f.Detail = d.text(MaxDetail)
	if err := d.end("fact"); err != nil {
		return Fact{}, err
	}
	if r.Key != FactKey(f.Plan, f.Kind) {
		return Fact{}, fmt.Errorf("fact %s of %s: %w: it lies under key %q", f.Kind, r.Writer, ErrMalformed, clip(r.Key, 80))
	}
	return f, nil
}

// Encode gives the canonical body of a command. A reason over MaxDetail is cut.
func (c Command) Encode() []byte {
	b := []byte{WireVersion, byte(c.Verb)}
	b = appendBytes(b, []byte(c.Rollout.Namespace))
	b = appendBytes(b, []byte(c.Rollout.Name))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Time))
	b = appendBytes(b, []byte(Cut(c.Reason)))
	b = append(b, byte(len(c.Lifts)))
	for _, l := range c.Lifts {
		b = append(b, l[:]...)
	}
	return b
}

// DecodeCommand reads the body of a record of KindCommand.
func DecodeCommand(r *Record) (Command, error) {
	d := bodyOf(r, KindCommand)
	c := Command{By: r.Writer, Verb: Verb(d.uint8())}
	c.Rollout.Namespace, c.Rollout.Name = d.text(63), d.text(253)
	c.Time = int64(d.uint64())
	c.Reason = d.text(MaxDetail)
	n := int(d.uint8())
	if n > MaxLifts {
		d.fail("lifts")
	}
	for i := 0; i < n && d.err == nil; i++ {
		c.Lifts = append(c.Lifts, Digest(d.take(32)))
	}
	if err := d.end("command"); err != nil {
		return Command{}, err
	}
	c.ID = r.Digest()
	return c, nil
}

// CommandRollout is the rollout that the key of a command names: namespace/name/ and what else its writer liked. A key
// may name none; one that does names that of the body. Who cannot read the body knows by it what may have been stopped.
func CommandRollout(key string) (RolloutName, bool) {
	namespace, rest, _ := strings.Cut(key, "/")
	name, _, ok := strings.Cut(rest, "/")
	if !ok || namespace == "" || name == "" {
		return RolloutName{}, false
	}
	return RolloutName{Namespace: namespace, Name: name}, true
}

// Encode gives the canonical body of a seal.
func (s Seal) Encode() []byte {
	b := []byte{WireVersion}
	b = appendBytes(b, []byte(s.Rollout.Namespace))
	b = appendBytes(b, []byte(s.Rollout.Name))
	b = appendBytes(b, []byte(s.Author))
	b = binary.BigEndian.AppendUint64(b, s.Term)
	b = binary.BigEndian.AppendUint64(b, s.Number)
	b = binary.BigEndian.AppendUint16(b, s.CompileVersion)
	b = append(b, s.Spec[:]...)
	return append(b, s.Members[:]...)
}

// SealKey is the key under which an author publishes a seal.
func (s Seal) SealKey() string {
	return fmt.Sprintf("%s/%020d.%020d", s.Rollout, s.Term, s.Number)
}

// DecodeSeal reads the body of a record of KindSeal. Only the author's own record carries its seal.
func DecodeSeal(r *Record) (Seal, error) {
	d := bodyOf(r, KindSeal)
	var s Seal
	s.Rollout.Namespace, s.Rollout.Name = d.text(63), d.text(253)
	s.Author = d.text(64)
	s.Term, s.Number = d.uint64(), d.uint64()
	s.CompileVersion = uint16(d.uint8())<<8 | uint16(d.uint8())
	copy(s.Spec[:], d.take(32))
	copy(s.Members[:], d.take(32))
	if err := d.end("seal"); err != nil {
		return Seal{}, err
	}
	if s.Author != string(r.Writer) || r.Key != s.SealKey() {
		return Seal{}, fmt.Errorf("seal of %s by %s: %w: it was written by %s under key %q",
			s.Rollout, clip(s.Author, 64), ErrMalformed, r.Writer, clip(r.Key, 80))
	}
	return s, nil
}

// statusPrefix begins the key of every status register.
const statusPrefix = "status/"

// StatusKey is the register a member keeps for a rollout.
func StatusKey(name RolloutName) string { return statusPrefix + name.String() }

// Encode gives the body of the register.
func (s Status) Encode() ([]byte, error) {
	s.Phase, s.Because = Cut(s.Phase), Cut(s.Because)
	return encodeJSON(s)
}

// encodeJSON leaves <, > and & as they are: no body is part of a page, and written as escapes they take six times the
// room.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// DecodeStatus reads a status register. Fields it does not know are left to those who do.
func DecodeStatus(r *Record) (Status, error) {
	if r.Kind != KindRegister {
		return Status{}, fmt.Errorf("status of %s: %w: in a %s", r.Writer, ErrMalformed, r.Kind)
	}
	var s Status
	if err := json.Unmarshal(r.Body, &s); err != nil {
		return Status{}, fmt.Errorf("status of %s: %w: %w", r.Writer, ErrMalformed, err)
	}
	if r.Key != StatusKey(s.Rollout) {
		return Status{}, fmt.Errorf("status of %s: %w: it lies under key %q", r.Writer, ErrMalformed, clip(r.Key, 80))
	}
	s.Phase, s.Because = Cut(s.Phase), Cut(s.Because)
	return s, nil
}

// Encode gives the canonical bytes of the heartbeat, signature included.
func (h *Heartbeat) Encode() []byte { return append(h.signed(), h.Sig...) }

func (h *Heartbeat) signed() []byte {
	key, err := h.Writer.PublicKey()
	if err != nil {
		key = make([]byte, publicKeySize) // never verifies
	}
	b := []byte{'F', 'H', WireVersion}
	b = append(b, h.Fleet[:]...)
	b = append(b, key...)
	b = append(b, h.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Counter)
	b = append(b, h.Root[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(h.Time))
}

// DecodeHeartbeat reads what Encode wrote. It checks form and bounds, not the signature.
func DecodeHeartbeat(b []byte) (Heartbeat, error) {
	if len(b) > MaxHeartbeat {
		return Heartbeat{}, fmt.Errorf("heartbeat of %d bytes: %w: at most %d", len(b), ErrMalformed, MaxHeartbeat)
	}
	d := decoder{rest: b}
	d.header('F', 'H')
	var h Heartbeat
	copy(h.Fleet[:], d.take(32))
	if key := d.take(publicKeySize); d.err == nil {
		h.Writer = MemberIDOf(key)
	}
	copy(h.Nonce[:], d.take(16))
	h.Counter = d.uint64()
	copy(h.Root[:], d.take(32))
	h.Time = int64(d.uint64())
	h.Sig = append([]byte(nil), d.take(signatureSize)...)
	if err := d.end("heartbeat"); err != nil {
		return Heartbeat{}, err
	}
	return h, nil
}

// Cut makes a text for people one line of at most MaxDetail bytes, cut at a rune's edge. Control
// characters become blanks: what another member says must not move a cursor here.
func Cut(s string) string {
	s = plainText(s)
	if len(s) <= MaxDetail {
		return s
	}
	s = s[:MaxDetail-3]
	for len(s) > 0 && !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "..."
}

// plainText replaces what is no UTF-8 and what isPlain refuses.
func plainText(s string) string {
	return strings.Map(func(c rune) rune {
		if isPlain(c) {
			return c
		}
		return ' '
	}, s)
}

// isPlain says whether a rune only shows itself. The others steer a terminal or turn the text's direction.
func isPlain(c rune) bool {
	if c < utf8.RuneSelf { // nearly all there is
		return c >= ' ' && c != 0x7f
	}
	return !unicode.IsControl(c) && !unicode.Is(unicode.Bidi_Control, c)
}

func appendBytes(b, field []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}

// decoder reads fields off the front of rest; after the first failure it only keeps the error.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrMalformed, what)
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || len(d.rest) < n {
		d.fail("cut short")
		return make([]byte, n)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uint8() uint8   { return d.take(1)[0] }
func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

// field gives a part of what is decoded, no copy of it.
func (d *decoder) field(most int) []byte {
	n := int(binary.BigEndian.Uint16(d.take(2)))
	if n > most || n > len(d.rest) {
		d.fail("field too long")
		return nil
	}
	return d.take(n)
}

func (d *decoder) bytes(most int) []byte { return append([]byte(nil), d.field(most)...) }

func (d *decoder) text(most int) string {
	s := string(d.field(most))
	if err := checkText(s); err != nil && d.err == nil {
		d.err = err
	}
	return s
}

// checkText refuses what Cut would change but for its length.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: text is not UTF-8", ErrMalformed)
	}
	if strings.ContainsFunc(s, func(c rune) bool { return !isPlain(c) }) {
		return fmt.Errorf("%w: control character in text", ErrMalformed)
	}
	return nil
}

// bodyOf opens the body of a record, which has to be of the kind: a fact in a register could be unsaid.
func bodyOf(r *Record, kind Kind) decoder {
	d := decoder{rest: r.Body}
	if r.Kind != kind {
		d.fail("in a record of kind " + r.Kind.String())
	}
	d.version()
	return d
}

func (d *decoder) header(a, b byte) {
	if m := d.take(2); m[0] != a || m[1] != b {
		d.fail("not the first two bytes")
	}
	d.version()
}

func (d *decoder) version() {
	if v := d.uint8(); v != WireVersion && d.err == nil {
		d.err = fmt.Errorf("%w: %d, this is %d", ErrVersion, v, WireVersion)
	}
}

func (d *decoder) end(what string) error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail(fmt.Sprintf("%d bytes too many", len(d.rest)))
	}
	if d.err != nil {
		return fmt.Errorf("%s: %w", what, d.err)
	}
	return nil
}

// Forms numbers what CheckBody judges, so that a member can tell what it is to be blamed for passing on. It goes up when
// CheckBody begins to judge what it let pass. What it judges it judges for ever by the same rules: another form of a body
// is another kind, or another version of the body with a number of its own in JudgedSince.
//
//	1  2026-11: seals, facts, commands, proofs, floors, rollups, statuses
const Forms = 1

// judgedSince are the kinds that CheckBody judges.
var judgedSince = map[Kind]uint8{
	KindSeal: 1, KindFact: 1, KindCommand: 1, KindProof: 1, KindFloor: 1, KindRollup: 1, KindRegister: 1,
}

// JudgedSince gives the number of Forms from which on CheckBody judges records like this one: 0 where it does not.
func JudgedSince(r *Record) uint8 { return judgedSince[r.Kind] }

// CheckBody refuses a body that is not what its kind says. Kinds, and versions of bodies, that are not
// known here pass: they are carried for those who know them. But not under the key of a proof against a member: what
// cannot be read there would take the place of one that settled that member's. A proof of a later form needs another
// key, or a kind of its own.
func CheckBody(r *Record) error {
	var err error
	switch {
	case r.Kind == KindFact:
		_, err = DecodeFact(r)
	case r.Kind == KindCommand:
		var c Command
		c, err = DecodeCommand(r)
		if name, ok := CommandRollout(r.Key); err == nil && ok && name != c.Rollout {
			err = fmt.Errorf("command for %s by %s: %w: it lies under key %q", c.Rollout, r.Writer, ErrMalformed, clip(r.Key, 80))
		}
	case r.Kind == KindSeal:
		_, err = DecodeSeal(r)
	case r.Kind == KindProof:
		_, err = DecodeProof(r)
		if _, none := MemberID(r.Key).PublicKey(); none == nil {
			return err
		}
	case r.Kind == KindFloor:
		_, err = DecodeFloor(r)
	case r.Kind == KindRollup:
		var u Rollup
		u, err = DecodeRollup(r)
		err = checkSaid(err, u.Time)
	case r.Kind == KindRegister && strings.HasPrefix(r.Key, statusPrefix):
		var s Status
		s, err = DecodeStatus(r)
		err = checkSaid(err, s.Time)
	}
	if errors.Is(err, ErrMalformed) {
		return err
	}
	return nil
}

// checkSaid refuses a register that ends some days after it was said and does not say when that was: it would never end.
func checkSaid(err error, time int64) error {
	if err == nil && time <= 0 {
		return fmt.Errorf("%w: said at %d, before anybody was there", ErrMalformed, time)
	}
	return err
}
