//! Which addresses are somebody else's machine on the public internet. Everything else is refused.
//!
//! The list is an allow list for IPv6 (global unicast without its special blocks) and a deny list for IPv4, after
//! the IANA special-purpose address registries (RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `address` is globally reachable and belongs to no special-purpose block.
///
/// SECURITY: an address that embeds another one (v4-mapped, 6to4, NAT64, Teredo) is never global here, so that no
/// private address hides inside it.
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let special = matches!(
        address.octets(),
        [0 | 10 | 127, ..]                  // this network, private, loopback (RFC 791, 1918, 1122)
            | [100, 64..=127, ..]           // carrier-grade NAT (RFC 6598)
            | [169, 254, ..]                // link-local and cloud metadata (RFC 3927)
            | [172, 16..=31, ..]            // private (RFC 1918)
            | [192, 0, 0 | 2, _]            // protocol assignments (RFC 6890), documentation (RFC 5737)
            | [192, 88, 99, _]              // 6to4 relays (RFC 7526)
            | [192, 168, ..]                // private (RFC 1918)
            | [198, 18 | 19, ..]            // benchmarks (RFC 2544)
            | [198, 51, 100, _]             // documentation (RFC 5737)
            | [203, 0, 113, _]              // documentation (RFC 5737)
            | [168, 63, 129, 16]            // Azure's platform endpoint, reachable from its machines only
            | [224..=255, ..] // multicast, reserved, broadcast (RFC 5771, 1112, 919)
    );
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Global unicast is 2000::/3 (RFC 4291 §2.4). Outside it lie loopback, v4-mapped, NAT64 (64:ff9b::/96 and
    // 64:ff9b:1::/48), unique local, link-local and multicast.
    if first & 0xe000 != 0x2000 {
        return false;
    }
    let special = match (first, second) {
        (0x2001, 0x0000..=0x01ff) => true, // IETF protocol assignments, Teredo, ORCHID (RFC 2928, 4380, 7343)
        (0x2001, 0x0db8) => true,          // documentation (RFC 3849)
        (0x2002, _) => true,               // 6to4 (RFC 3056)
        (0x3fff, 0x0000..=0x0fff) => true, // documentation (RFC 9637)
        _ => false,
    };
    !special
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.254",
        "127.0.0.1",
        "127.1.2.3",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.17.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.170",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.254",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "fe80::a9fe:a9fe",
        "fec0::1",
        "ff01::1",
        "ff02::1",
        "ff0e::1",
        "4000::1",
    ];

    const REACHED: &[&str] = &[
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "140.82.112.3",
        "168.63.129.15",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "3ffe::1",
    ];

    #[test]
    fn no_special_address_is_global() {
        assert!(REFUSED.len() >= 60);
        for text in REFUSED {
            assert!(!is_global(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_neighbours_of_special_blocks_are_global() {
        for text in REACHED {
            assert!(is_global(text.parse().unwrap()), "{text}");
        }
    }
}
