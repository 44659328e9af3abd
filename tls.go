package caddysnake

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"

	"github.com/mliezun/caddy-snake/internal/marshal"
)

// notVerified is what client_cert_error says of a certificate that Caddy asked for without holding it against an
// authority.
const notVerified = "the certificate was not verified against a certificate authority"

// appendTLS appends the value of the ASGI TLS extension (version 0.2). server_cert is None: crypto/tls does not tell which
// certificate it sent.
func appendTLS(b []byte, state *tls.ConnectionState) []byte {
	chain := state.PeerCertificates
	b = marshal.AppendDict(b)
	b = marshal.AppendNone(marshal.AppendKey(b, "server_cert"))
	b = marshal.AppendList(marshal.AppendKey(b, "client_cert_chain"), len(chain))
	for _, certificate := range chain {
		block := pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}
		b = marshal.AppendString(b, string(pem.EncodeToMemory(&block)))
	}
	b = marshal.AppendKey(b, "client_cert_name")
	if len(chain) > 0 {
		b = marshal.AppendString(b, distinguishedName(chain[0]))
	} else {
		b = marshal.AppendNone(b)
	}
	b = marshal.AppendKey(b, "client_cert_error")
	if len(chain) > 0 && len(state.VerifiedChains) == 0 {
		b = marshal.AppendString(b, notVerified)
	} else {
		b = marshal.AppendNone(b)
	}
	b = marshal.AppendInt(marshal.AppendKey(b, "tls_version"), int64(state.Version))
	b = marshal.AppendInt(marshal.AppendKey(b, "cipher_suite"), int64(state.CipherSuite))
	return marshal.AppendDictEnd(b)
}

// distinguishedName is the subject as RFC 4514 writes it: its parts in reverse order.
func distinguishedName(certificate *x509.Certificate) string {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(certificate.RawSubject, &name); err != nil {
		return certificate.Subject.String()
	}
	return name.String()
}
