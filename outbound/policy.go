package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
)

// errBlocked is wrapped by everything the policy refuses.
var errBlocked = errors.New("not a permitted destination")

// alsoDenied are public addresses that lead inside: Azure's host agent, which
// answers every virtual machine.
var alsoDenied = []netip.Prefix{netip.MustParsePrefix("168.63.129.16/32")}

// policy decides which addresses may be called.
type policy struct {
	allowed []netip.Prefix
	ports   []uint16
	guard   *ssrf.Guardian // the special-purpose ranges of IANA's registries
}

func newPolicy(o Options) policy {
	ports := o.AllowedPorts
	if len(ports) == 0 {
		ports = []uint16{80, 443}
	}
	return policy{
		allowed: slices.Clone(o.AllowedPrefixes),
		ports:   ports,
		guard:   ssrf.New(ssrf.WithPorts(ports...), ssrf.WithDeniedV4Prefixes(slices.Clone(alsoDenied)...)),
	}
}

// control is the dialer's last word on the concrete address, after every
// look-up: a name that resolves to something else now cannot slip through.
func (p *policy) control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%w: %s", errBlocked, network)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: address not understood", errBlocked)
	}
	return p.checkAddr(to)
}

func (p *policy) checkAddr(to netip.AddrPort) error {
	if p.isAllowed(to.Addr()) {
		return nil
	}
	if err := p.guard.SafeAddrPort(to); err != nil {
		return fmt.Errorf("%w: %w", errBlocked, err)
	}
	return nil
}

func (p *policy) isAllowed(ip netip.Addr) bool {
	return slices.ContainsFunc(p.allowed, func(net netip.Prefix) bool { return net.Contains(ip) })
}

// opensLoopback tells whether names of this machine may be used.
func (p *policy) opensLoopback() bool {
	return p.isAllowed(netip.MustParseAddr("127.0.0.1")) || p.isAllowed(netip.IPv6Loopback())
}

func (p *policy) opensAnything() bool { return len(p.allowed) > 0 }

// checkURL refuses what can be refused before a look-up, with the reason.
func (p *policy) checkURL(u *url.URL) error {
	if u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%w: want https:// or http://", errBlocked)
	}
	host := strings.ToLower(u.Hostname())
	if host == "" || u.Opaque != "" {
		return fmt.Errorf("%w: the URL names no host", errBlocked)
	}
	if u.User != nil {
		return fmt.Errorf("%w: credentials belong in the authentication settings", errBlocked)
	}
	port := uint16(443)
	if u.Scheme == "http" {
		port = 80
	}
	if s := u.Port(); s != "" {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%w: the port is not a number from 1 to 65535", errBlocked)
		}
		port = uint16(n)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return fmt.Errorf("%w: an address with a zone", errBlocked)
		}
		return p.checkAddr(netip.AddrPortFrom(ip, port))
	}
	return p.checkName(strings.TrimSuffix(host, "."), port)
}

func (p *policy) checkName(host string, port uint16) error {
	labels := strings.Split(host, ".")
	last := labels[len(labels)-1]
	switch {
	case isNumber(last):
		// 127.1, 2130706433, 0x7f000001, 0177.0.0.1: some resolvers take them for addresses.
		return fmt.Errorf("%w: write the address as four decimal numbers", errBlocked)
	case last == "localhost" && !p.opensLoopback():
		return fmt.Errorf("%w: this machine", errBlocked)
	case !slices.Contains(p.ports, port) && !p.opensAnything():
		return fmt.Errorf("%w: port %d is not one of %v", errBlocked, port, p.ports)
	}
	return nil
}

// isNumber follows the URL standard's "ends in a number".
func isNumber(label string) bool {
	if digits, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
