# syntax=docker/dockerfile:1
# The node, and the operator for Kubernetes: no shell, no package manager, no root. The node needs no writable root file system
# (`docker run --read-only`): all that it keeps lies in the volume.
FROM rust:1.95.0-bookworm AS build
# The one in the image, so that rust-toolchain.toml does not make rustup fetch what only developers need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --release --locked --package shortener-node --package shortener-operator \
 && install -D -t /out /target/release/shortener-node /target/release/shortener-operator \
 && install -d /out/data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/shortener-node /out/shortener-operator /usr/local/bin/
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
ENV DATABASE_URL=embedded:/data
VOLUME /data
# Probes and metrics are on port 9000 of the container's own loopback, unless ADMIN_ADDR says otherwise.
EXPOSE 8000
ENTRYPOINT ["/usr/local/bin/shortener-node"]
