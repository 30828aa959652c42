# Three small images from one file, for each platform that Go and Debian know:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --target webhook|sidecar|redirect --build-arg VERSION=... .
#
# Nothing is emulated: Go compiles for the target, and what redirect needs comes out of Debian's packages for the target.
# Other base images do as well, if they have this Go, and apt of this Debian: GO_IMAGE and DEBIAN_IMAGE name them.
ARG GO_IMAGE=docker.io/library/golang:1.26
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

FROM --platform=$BUILDPLATFORM $GO_IMAGE AS source
WORKDIR /source
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ENV CGO_ENABLED=0 GOOS=linux GOCACHE=/go/build

FROM source AS build-webhook
ARG TARGETARCH
ARG VERSION=unknown
RUN GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /webhook ./webhook

# To be run but not read, also by its own user: then no process of that user may look into its memory.
FROM source AS build-sidecar
ARG TARGETARCH
ARG VERSION=unknown
RUN GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /sidecar ./sidecar && chmod 711 /sidecar

FROM source AS build-redirect
ARG TARGETARCH
ARG VERSION=unknown
RUN GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /redirect ./sidecar/redirect

# Both back ends of iptables with the extensions for IP, since the rules that others wrote must be readable, too. No shell.
FROM --platform=$BUILDPLATFORM $DEBIAN_IMAGE AS iptables
WORKDIR /packages
ARG TARGETARCH
RUN dpkg --add-architecture "$TARGETARCH" && \
    apt-get -qq -o Acquire::Languages=none update && \
    for package in iptables libip4tc2 libip6tc2 libxtables12 libmnl0 libnftnl11 libnetfilter-conntrack3 libnfnetlink0 libc6; do \
      echo "$package:$TARGETARCH"; \
    done | xargs apt-get -qq -o APT::Sandbox::User=root download && \
    for package in *.deb; do dpkg-deb --extract "$package" . || exit 1; done
RUN triplet=$(basename usr/lib/*-linux-gnu*) && \
    mkdir -p /image/run /image/usr/sbin "/image/lib/$triplet" "/image/usr/lib/$triplet/xtables" && \
    cp usr/sbin/xtables-nft-multi usr/sbin/xtables-legacy-multi /image/usr/sbin/ && \
    for family in iptables ip6tables; do for end in nft legacy; do for action in "" -save -restore; do \
      ln -s "xtables-$end-multi" "/image/usr/sbin/$family-$end$action" || exit 1; \
    done; done; done && \
    cp usr/lib/*/xtables/lib[ix]*.so "/image/usr/lib/$triplet/xtables/" && \
    for library in ip4tc.so.2 ip6tc.so.2 xtables.so.12 mnl.so.0 nftnl.so.11 netfilter_conntrack.so.3 nfnetlink.so.0; do \
      cp "usr/lib/$triplet/lib$library" "/image/lib/$triplet/" || exit 1; \
    done && \
    cp "lib/$triplet/libc.so.6" "lib/$triplet/libm.so.6" "/image/lib/$triplet/" && \
    for loader in lib/ld-linux* lib64/ld-linux*; do \
      [ ! -L "$loader" ] || { mkdir -p "/image/${loader%/*}" && cp "lib/$triplet/${loader##*/}" "/image/$loader"; } || exit 1; \
    done

FROM scratch AS webhook
COPY --from=build-webhook /webhook /webhook
USER 65532:65532
ENTRYPOINT ["/webhook"]

FROM scratch AS redirect
COPY --from=iptables /image/ /
COPY --from=build-redirect /redirect /redirect
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 0:0
ENTRYPOINT ["/redirect"]

# The certificates are those by which it knows real providers.
FROM scratch AS sidecar
COPY --from=source /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build-sidecar /sidecar /sidecar
USER 14001:14001
ENTRYPOINT ["/sidecar"]
