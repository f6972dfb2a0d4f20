#!/usr/bin/env bash
# usage: bash tools/get_fashion_mnist.sh [FOLDER]
# Fashion-MNIST's four files into FOLDER (data/fashion_mnist): from its authors, or where that host cannot be reached from Debian's package.
set -euo pipefail
folder=${1:-data/fashion_mnist}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
files=(train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte)
sums=( # SHA-256 of the unpacked files: Debian packs them anew
  c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
  bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
  5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
  0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fetch_from_authors() {
  for file in "${files[@]}"; do
    curl --silent --show-error --fail --location --connect-timeout 15 --remote-name \
      "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/$file.gz" || return 1
  done
}
fetch_from_debian() {
  apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb . && mv usr/share/datasets/fashion-mnist/*.gz .
}
fetch_from_authors || fetch_from_debian || { echo "get_fashion_mnist.sh: neither its authors' host nor Debian's packages can be reached" >&2; exit 1; }
for i in "${!files[@]}"; do
  gunzip "${files[i]}.gz"
  echo "${sums[i]}  ${files[i]}" | sha256sum --check --quiet || { echo "get_fashion_mnist.sh: ${files[i]} is damaged" >&2; exit 1; }
  mv "${files[i]}" "$folder/"
done
echo "$folder: 60,000 training and 10,000 test pictures"
