// A curve as text, for terminals.
#pragma once

#include <string>
#include <vector>

namespace trainyard::client {

struct PlotPoint {
  double x = 0;
  double y = 0;
};

struct PlotOptions {
  std::string title;
  std::string x_label = "step";
  int width = 72;       // of the whole plot in characters, axis included; at least 30
  int height = 15;      // rows of the curve; at least 3
  bool unicode = true;  // braille dots, 2 x 4 a character; false: '*'
};

// Points in any order; those that are not finite are left out. Several in one column of dots become their mean, and
// neighbouring columns are joined. Ends with a newline.
std::string Plot(std::vector<PlotPoint> points, const PlotOptions& options);

}  // namespace trainyard::client
