//go:build !windows

package caddysnake

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// fileFrame is a FILE frame that ends the response.
func fileFrame(file *os.File, head []byte, offset, count uint64, shared bool) wire.Frame {
	data := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, offset), count)
	data = append(data, 0)
	if shared {
		data[16] = 1
	}
	return wire.Frame{Type: wire.File, End: true, Head: head, Data: data, File: file}
}

func tempFile(t *testing.T, content string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return openFile(t, path)
}

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

func TestFilesAreChecked(t *testing.T) {
	file := tempFile(t, "0123456789")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close(); _ = writer.Close() })
	writeOnly, err := os.OpenFile(file.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = writeOnly.Close() })
	ok := responseHead(200)
	long := responseHead(200, [2]string{"content-length", "11"})
	tests := map[string]struct {
		frame  wire.Frame
		status int
		body   string // or a part of the error
	}{
		"whole":                   {fileFrame(file, ok, 0, 10, false), 200, "0123456789"},
		"part":                    {fileFrame(file, ok, 3, 4, false), 200, "3456"},
		"shared position":         {fileFrame(file, ok, 3, 4, true), 200, "3456"},
		"nothing":                 {fileFrame(file, ok, 10, 0, false), 200, ""},
		"beyond the end":          {fileFrame(file, ok, 3, 8, false), 500, "8 bytes from 3 on of a response's file of 10"},
		"from beyond the end":     {fileFrame(file, ok, 11, 0, false), 500, "0 bytes from 11 on"},
		"negative offset":         {fileFrame(file, ok, 1<<63, 1, false), 500, "of a response's file of 10"},
		"negative count":          {fileFrame(file, ok, 1, 1<<64-1, false), 500, "of a response's file of 10"},
		"shorter than its length": {fileFrame(file, long, 0, 10, false), 500, "content-length is \"11\""},
		"length is no number":     {fileFrame(file, responseHead(200, [2]string{"content-length", "-1"}), 0, 10, false), 500, "content-length"},
		"short data":              {wire.Frame{Type: wire.File, End: true, Head: ok, Data: []byte("x"), File: file}, 500, "1 bytes of data"},
		"no descriptor":           {fileFrame(nil, ok, 0, 10, false), 500, "did not arrive"},
		"folder":                  {fileFrame(openFile(t, t.TempDir()), ok, 0, 0, false), 500, "not a regular file"},
		"pipe":                    {fileFrame(reader, ok, 0, 0, false), 500, "not a regular file"},
		"device":                  {fileFrame(openFile(t, os.DevNull), ok, 0, 0, false), 500, "not a regular file"},
		"illegal header":          {fileFrame(file, responseHead(200, [2]string{"x-a", "1\n"}), 0, 10, false), 500, "illegal value"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := testPool(t, settings{Interface: interfaceASGI}, answer(test.frame))
			status, body, err := get(t, testServer(t, p).URL)
			if status != test.status || !strings.Contains(body, test.body) || err != nil {
				t.Errorf("got %d %q, %v; want %d %q", status, body, err, test.status, test.body)
			}
		})
	}
	for name, frame := range map[string]wire.Frame{
		"beyond the end": fileFrame(file, nil, 3, 8, false),
		"no descriptor":  fileFrame(nil, nil, 0, 10, false),
		"write-only":     fileFrame(writeOnly, nil, 0, 10, true),
	} {
		t.Run(name+" after the response began", func(t *testing.T) {
			begin := wire.Frame{Type: wire.Response, Head: ok, Data: []byte("begun")}
			p := testPool(t, settings{Interface: interfaceASGI}, answer(begin, frame))
			if status, body, err := get(t, testServer(t, p).URL); status != 200 || body != "begun" || err == nil {
				t.Errorf("got %d %q, %v, want a response that is cut", status, body, err)
			}
		})
	}
}

func TestDescriptorsClosesWhatIsNotUnderstood(t *testing.T) {
	d, theirs, err := newDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	defer func() { _ = theirs.Close() }()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	send := func(message string, files ...int) {
		t.Helper()
		var rights []byte
		if len(files) > 0 {
			rights = unix.UnixRights(files...)
		}
		if err := unix.Sendmsg(int(theirs.Fd()), []byte(message), rights, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	fd := int(writer.Fd())
	send("\x01\x00\x00\x00", fd, fd)         // two at once
	send("\x01\x00\x00\x00", fd, fd, fd, fd) // more than there is room for
	send("\x01", fd)
	send("\x01\x00\x00\x00more", fd)
	send("\x02\x00\x00\x00")
	send("\x03\x00\x00\x00", fd)
	_ = writer.Close()
	if stream, file, ok := d.Next(); stream != 2 || file != nil || !ok {
		t.Errorf("got %d %v %t, want what tells that stream 2's descriptor was lost", stream, file, ok)
	}
	stream, file, ok := d.Next()
	if stream != 3 || file == nil || !ok {
		t.Fatalf("got %d %v %t, want stream 3's descriptor", stream, file, ok)
	}
	_ = file.Close()
	if stream, file, ok := d.Next(); ok {
		t.Errorf("got %d %v, want nothing", stream, file)
	}
	if _, err := reader.Read(make([]byte, 1)); err == nil || err.Error() != "EOF" {
		t.Errorf("got %v: a writer of the pipe is still open", err)
	}
}

func TestHintsAndTrailersAreChecked(t *testing.T) {
	pair := func(name, value string) []byte {
		b := marshal.AppendTuple(marshal.AppendList(nil, 1), 2)
		return marshal.AppendBytes(marshal.AppendBytes(b, name), value)
	}
	begin := wire.Frame{Type: wire.Response, Head: responseHead(200), Data: []byte("begun")}
	for name, test := range map[string]struct {
		frames []wire.Frame
		status string
	}{
		"link with a carriage return": {[]wire.Frame{{Type: wire.Hint, Data: []byte("a\rx-b: 2")}}, "HTTP/1.1 500"},
		"trailer that is a header":    {[]wire.Frame{begin, {Type: wire.Trailers, Head: pair("content-length", "1")}}, "HTTP/1.1 200"},
		"newline in a trailer":        {[]wire.Frame{begin, {Type: wire.Trailers, Head: pair("x-a", "1\r\nx-b: 2")}}, "HTTP/1.1 200"},
		"space in a trailer's name":   {[]wire.Frame{begin, {Type: wire.Trailers, Head: pair("x a", "1")}}, "HTTP/1.1 200"},
		"no marshal":                  {[]wire.Frame{begin, {Type: wire.Trailers, Head: []byte("garbage")}}, "HTTP/1.1 200"},
	} {
		t.Run(name, func(t *testing.T) {
			server := testServer(t, testPool(t, settings{Interface: interfaceASGI}, answer(test.frames...)))
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n"))
			var lines []string
			for scanner := bufio.NewScanner(conn); scanner.Scan(); {
				lines = append(lines, scanner.Text())
			}
			got := strings.Join(lines, "\n")
			if !strings.HasPrefix(got, test.status) || strings.Contains(got, "x-b: 2\n") || strings.HasSuffix(got, "\n0\n") {
				t.Errorf("got %q, want %s and no more than begun", got, test.status)
			}
		})
	}
}

func TestTLSExtension(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	organization := asn1.ObjectIdentifier{2, 5, 4, 10}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "DE"},
		{Type: organization, Value: "Second, <first>"},
		{Type: organization, Value: "#1"},
		{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "Zoë"},
	}}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	state := &tls.ConnectionState{
		Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		PeerCertificates: []*x509.Certificate{certificate},
	}
	shown := func() map[string]any {
		t.Helper()
		value, err := marshal.Decode(appendTLS(nil, state))
		if err != nil {
			t.Fatal(err)
		}
		return value.(map[string]any)
	}
	got := shown()
	if want := `CN=Zoë,O=\#1,O=Second\, \<first\>,C=DE`; got["client_cert_name"] != want {
		t.Errorf("got name %q, want %q", got["client_cert_name"], want)
	}
	if got["client_cert_error"] != notVerified || got["tls_version"] != int64(0x0303) || got["cipher_suite"] != int64(0xc02b) {
		t.Errorf("got %v", got)
	}
	if chain := got["client_cert_chain"].([]any); len(chain) != 1 || !strings.HasPrefix(chain[0].(string), "-----BEGIN CERTIFICATE-----\n") {
		t.Errorf("got chain %q", chain)
	}
	state.VerifiedChains = [][]*x509.Certificate{{certificate}}
	if got := shown(); got["client_cert_error"] != nil {
		t.Errorf("got error %q for a verified certificate", got["client_cert_error"])
	}
}
