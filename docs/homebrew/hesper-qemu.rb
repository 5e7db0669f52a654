# QEMU with the options that Hesper needs. docs/macos.md says how to use this file. Nobody has run
# it on a Mac yet.
class HesperQemu < Formula
  desc "QEMU with vhost-user devices, for Hesper"
  homepage "https://www.qemu.org/"
  # QEMU 11.1 is the first version that maps a vhost-user device's memory into the guest
  # (vhost-user-test-device-pci).
  url "https://gitlab.com/qemu-project/qemu.git", tag: "v11.1.2"
  license "GPL-2.0-only"
  head "https://gitlab.com/qemu-project/qemu.git", branch: "master"

  keg_only "it has the same programs as the formula qemu"

  depends_on "libtool" => :build
  depends_on "meson" => :build
  depends_on "ninja" => :build
  depends_on "pkgconf" => :build
  depends_on "python@3.13" => :build

  depends_on "dtc"
  depends_on "glib"
  depends_on "libslirp"
  depends_on "pixman"
  depends_on "zstd"

  uses_from_macos "bison" => :build
  uses_from_macos "flex" => :build
  uses_from_macos "zlib"

  def install
    ENV["LIBTOOL"] = "glibtool"
    guest = Hardware::CPU.arm? ? "aarch64" : "x86_64"
    args = %W[
      --prefix=#{prefix}
      --cc=#{ENV.cc}
      --host-cc=#{ENV.cc}
      --target-list=#{guest}-softmmu
      --enable-vhost-user
      --enable-fdt=system
      --enable-pixman
      --enable-slirp
      --enable-tools
      --enable-zstd
      --disable-docs
      --disable-guest-agent
      --disable-gtk
      --disable-sdl
      --disable-werror
    ]
    # QEMU enables vhost-user by default on Linux only.
    args += ["--enable-cocoa", "--enable-hvf"] if OS.mac?
    system "./configure", *args
    system "make", "install"
  end

  test do
    guest = Hardware::CPU.arm? ? "aarch64" : "x86_64"
    qemu = bin/"qemu-system-#{guest}"
    machine = Hardware::CPU.arm? ? "virt" : "q35"
    assert_match version.to_s, shell_output("#{qemu} --version")
    devices = shell_output("#{qemu} -machine #{machine} -device help 2>&1")
    assert_match '"vhost-user-test-device-pci"', devices
    assert_match '"vhost-user-input-pci"', devices
    assert_match "memory-backend-shm", shell_output("#{qemu} -object help")
    assert_match "hvf", shell_output("#{qemu} -accel help") if OS.mac?
  end
end
