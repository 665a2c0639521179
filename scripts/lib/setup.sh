# Shared by scripts/test and scripts/demo: what must be there, and how to get it. To be sourced.

# What a build needs beside Rust: librdkafka is C, with TLS.
BUILD_NEEDS="gcc:gcc g++:g++ make:make cmake:cmake /usr/include/openssl/ssl.h:libssl-dev curl-config:libcurl4-openssl-dev"
# What scripts/kafka needs: a broker to test against.
KAFKA_NEEDS="java:default-jre-headless mvn:maven openssl:openssl flock:util-linux"

# need_packages COMMAND:PACKAGE ...: installs the Debian packages whose command or file is missing, and says so.
need_packages() {
    local missing=() pair
    for pair in "$@"; do
        [ -e "${pair%%:*}" ] || PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "these Debian packages are missing: ${missing[*]}; install them, or run this as root" >&2
            exit 2
        }
        sudo=(sudo)
    fi
    echo "installing Debian packages: ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    # Services must not start on this machine: they are only wanted inside the lab.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
}

# need_rust: Rust 1.95 or later, or how to get it.
need_rust() {
    local version
    [ -x "$HOME/.cargo/bin/cargo" ] && PATH="$HOME/.cargo/bin:$PATH"
    version=$(rustc --version 2>/dev/null | awk '{print $2}') || true
    if [ -z "$version" ] || [ "$(printf '%s\n1.95.0\n' "${version%%-*}" | sort -V | head -n 1)" != 1.95.0 ]; then
        echo "Rust 1.95 or later is needed (found: ${version:-none})." >&2
        echo "Get it with rustup (package rustup of Debian 13, or see rust-lang.org/tools/install), then: rustup toolchain install stable" >&2
        exit 2
    fi
}
