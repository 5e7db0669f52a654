# Checks the Homebrew formulae of docs/homebrew without Homebrew:
#
#   ruby tests/macos/formulae.rb
#
# The classes below stand in for Homebrew's. They have only the methods that the formulae use, so a
# misspelt word is an error. Each formula's install runs for a Mac of each processor and for Linux.
# Its commands are recorded and not run.

# The machine that a formula is read for.
module OS
  class << self
    attr_accessor :name

    def mac? = name == :mac
  end
end

module Hardware
  class CPU
    class << self
      attr_accessor :name

      def arm? = name == :arm
    end
  end
end

module Utils
  def self.git_short_head = "abc1234"
end

# Homebrew's addition to ENV.
def ENV.cc = "clang"

# The base class of formulae.
class Formula
  WORDS = %i[desc homepage url license head keg_only depends_on uses_from_macos].freeze

  class << self
    def facts = @facts ||= Hash.new { |all, word| all[word] = [] }

    WORDS.each { |word| define_method(word) { |*values, **options| facts[word] << [*values, options] } }

    def on_macos = OS.mac? ? yield : nil

    def on_linux = OS.mac? ? nil : yield

    def test(&block) = facts[:test] << block
  end

  # The commands of install, each with its arguments.
  def commands = @commands ||= []

  def system(*words) = commands << words.map(&:to_s)

  def std_cargo_args = ["--locked", "--root=#{prefix}", "--path=."]

  def prefix = "/opt/homebrew/Cellar/it"

  # Formulae call build.head?.
  def build = Struct.new(:head?).new(true)
end

def check(holds, words)
  holds or abort "tests/macos/formulae.rb: #{words}"
end

folder = File.expand_path("../../docs/homebrew", __dir__)
read = 0
[%i[mac arm], %i[mac intel], %i[linux intel]].each do |system, processor|
  OS.name = system
  Hardware::CPU.name = processor
  Dir["#{folder}/*.rb"].each do |path|
    name = File.basename(path, ".rb")
    constant = name.split("-").map(&:capitalize).join.to_sym
    Object.send(:remove_const, constant) if Object.const_defined?(constant)
    load path
    formula = Object.const_get(constant)
    facts = formula.facts
    %i[desc homepage license head test].each { |word| check facts.key?(word), "#{name}: #{word} is missing" }
    check facts[:desc][0][0].length <= 80, "#{name}: desc is longer than 80 characters"
    instance = formula.new
    instance.install
    words = instance.commands.flatten
    case name
    when "hesper"
      check words.take(2) == %w[cargo install], "hesper: cargo does not install it: #{words}"
      check facts[:depends_on].flatten.include?("molten-vk") == (system == :mac), "hesper: molten-vk is for macOS"
      check ENV.delete("HESPER_COMMIT") == "abc1234", "hesper: HESPER_COMMIT is not set"
    when "hesper-qemu"
      target = Hardware::CPU.arm? ? "aarch64" : "x86_64"
      check words.include?("--enable-vhost-user"), "hesper-qemu: vhost-user is off"
      check words.include?("--target-list=#{target}-softmmu"), "hesper-qemu: #{target} is not built"
      check words.include?("--enable-hvf") == (system == :mac), "hesper-qemu: hvf is for macOS"
      check facts.key?(:keg_only), "hesper-qemu: it would replace the formula qemu"
    end
    read += 1
  end
end
check read == 6, "read #{read} formulae instead of two on three machines"
puts "formulae: #{read} passed, 0 failed"
