# Hesper. docs/macos.md says how to use this file. Nobody has run it on a Mac yet.
class Hesper < Formula
  desc "Vulkan for virtual machines: a vhost-user-gpu backend with its own window"
  homepage "https://github.com/hesper-vm/hesper"
  license any_of: ["Apache-2.0", "MIT"]
  # There is no release yet: use brew install --HEAD.
  head "https://github.com/hesper-vm/hesper.git", branch: "main"

  depends_on "rust" => :build

  on_macos do
    depends_on macos: :monterey
    # The driver. Hesper finds it in Homebrew's folder, with or without a Vulkan loader.
    depends_on "molten-vk"
  end

  on_linux do
    depends_on "vulkan-loader"
  end

  def install
    # `hesper doctor --report` prints it.
    ENV["HESPER_COMMIT"] = Utils.git_short_head if build.head?
    system "cargo", "install", *std_cargo_args
  end

  def caveats
    <<~EOS
      Virtual machines need QEMU 11.1 or newer with --enable-vhost-user, which Homebrew's
      formula qemu does not have; the formula hesper-qemu beside this one has.
      "hesper doctor" says whether this Mac can give them Vulkan.
    EOS
  end

  test do
    assert_match '"type":"gpu"', shell_output("#{bin}/hesper --print-capabilities")
    # The command fails where there is no GPU, as on build machines. The report must be complete
    # even then.
    assert_match "Please add:", shell_output("#{bin}/hesper doctor --report 2>&1 || true")
  end
end
